"""What environments and policies give is checked against its space, then converted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from gato_gym.episodes.minari_datasets import read_minari
from policies.collection.env_faults import GuardedEnv
from policies.collection.record import play_returns, record_episodes
from policies.rollout.faults import EnvironmentFault
from policies.rollout.members import as_action, as_observation, success_in
from policies.rollout.outcomes import EpisodeKey
from policies.rollout.vector_rollout import play


class Scripted(gym.Env[Any, Any]):
    """Two steps of given observations, reward and info; its actions are kept."""

    def __init__(
        self, observed: gym.Space[Any], acted: gym.Space[Any], observation: Any,
        reward: Any = 0.0, info: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.observation_space, self.action_space = observed, acted
        self.observation, self.reward, self.info = observation, reward, info or {}
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.left = 2
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.left -= 1
        return self.observation, self.reward, not self.left, False, self.info


class Says:
    """Always the same."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def predict(self, *_: Any, **__: Any) -> tuple[Any, Any]:
        return self.action, None


PAIR = spaces.Dict(arm=spaces.Box(-1, 1, (2,)), say=spaces.Tuple([spaces.Box(-1, 1, (1,))]))
NOTHING = spaces.Box(0, 1, (1,))


def recorded(observed: gym.Space[Any], observation: Any, acted: gym.Space[Any], action: Any) -> Any:
    env = Scripted(observed, acted, observation)
    record_episodes(env, Says(action), 1, "my/scripted-v0")
    (episode,) = read_minari("my/scripted-v0")
    return episode, env.actions


@pytest.fixture(autouse=True)
def _datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def test_tuples_for_arrays_are_not_transposed() -> None:
    three = spaces.MultiDiscrete([5, 5, 5])
    episode, played = recorded(three, (1, 2, 3), spaces.MultiDiscrete([9, 9]), (7, 8))
    assert episode.observations.tolist() == [[1, 2, 3]] * 3
    assert episode.actions.tolist() == [[7, 8]] * 2
    assert [action.tolist() for action in played] == [[7, 8]] * 2


def test_plain_numbers_inside_dicts_and_tuples_become_their_spaces() -> None:
    action = {"arm": np.array([0.1, -0.2]), "say": (0.5,)}
    seen = {"arm": [0.25, 1], "say": [np.float64(-1)]}
    episode, played = recorded(PAIR, seen, PAIR, action)
    assert PAIR.contains(played[0])
    assert episode.actions["arm"].dtype == episode.observations["arm"].dtype == np.float32
    np.testing.assert_array_equal(episode.actions["arm"], np.float32([[0.1, -0.2]] * 2))
    assert episode.actions["say"][0].tolist() == [[0.5]] * 2
    assert episode.observations["arm"].tolist() == [[0.25, 1]] * 3


@pytest.mark.parametrize(
    ("space", "action", "complaint"),
    [
        (spaces.Discrete(3), np.array([0.1, 0.7, 0.2]), "shape (3,).*not probabilities or a one"),
        (spaces.Discrete(3), np.array([0, 0, 1]), "shape (3,): expected ()"),
        (spaces.Discrete(3), 0.7, "is 0.7, which int64 does not hold"),
        (spaces.Discrete(3), np.nan, "is nan, which int64 does not hold"),
        (spaces.Discrete(3), None, "is None: expected numbers"),
        (spaces.Discrete(3), "left", "is 'left': expected numbers"),
        (spaces.Discrete(3), 3, "gave 3, which is no member of Discrete(3)"),
        (spaces.Box(0, 255, (2,), np.uint8), [300, 1], "is 300, which uint8 does not hold"),
        (spaces.Box(0, 255, (2,), np.uint8), [-1, 1], "is -1, which uint8 does not hold"),
        (spaces.Box(0, 9, (2,), np.int64), [0.5, 1], "is 0.5, which int64 does not hold"),
        (spaces.Box(-1, 1, (2, 3)), np.zeros((3, 2)), "shape (3, 2): expected (2, 3)"),
        (spaces.Box(-1, 1, (2,)), [0, 1.5], "no member of Box"),
        (spaces.Box(-np.inf, np.inf, (1,)), 1e300, "is 1e+300, which float32 does not hold"),
        (spaces.MultiDiscrete([3, 3]), (1, 3), "no member of MultiDiscrete"),
        (spaces.MultiBinary(2), [0.5, 1], "is 0.5, which int8 does not hold"),
        (spaces.Text(3), 3, "is 3: expected a str"),
        (PAIR, {"arm": [0, 0]}, "a dict with ['arm']: expected a dict with ['arm', 'say']"),
        (PAIR, {"arm": [0], "say": (0,)}, "action['arm'] has shape (1,): expected (2,)"),
        (PAIR, {"arm": [0, 0], "say": (0, 0)}, "action['say'] is (0, 0): expected a tuple of 1"),
        (spaces.Sequence(spaces.Discrete(3)), (1, 0.5), "action[1] is 0.5"),
        (spaces.Sequence(spaces.Discrete(3)), 1, "is 1: expected a tuple"),
        (spaces.OneOf([NOTHING, spaces.Discrete(2)]), (2, 0), "of branch 2: expected [0, 2)"),
        (spaces.OneOf([NOTHING, spaces.Discrete(2)]), 1, "is 1: expected (branch, value)"),
        (spaces.Graph(NOTHING, None), ([[0.5]], [[1.0]], [[0, 0]]), "both"),
        (spaces.Graph(NOTHING, NOTHING), ([[0.5]], [[1.0]], [[0, 1]]), "no member of Graph"),
    ],
)  # fmt: skip
def test_an_action_that_is_none_is_named_and_not_played(
    space: gym.Space[Any], action: Any, complaint: str
) -> None:
    env = Scripted(NOTHING, space, np.zeros(1, np.float32))
    pattern = complaint
    for sign in "()[]+":
        pattern = pattern.replace(sign, "\\" + sign)
    with pytest.raises(ValueError, match=pattern):
        play_returns(env, Says(action), 1)
    assert env.actions == []


@pytest.mark.parametrize(
    ("space", "action", "member"),
    [
        (spaces.Discrete(3), np.array([2]), np.int64(2)),
        (spaces.Discrete(3), 2.0, np.int64(2)),
        (spaces.Discrete(2), np.bool_(True), np.int64(1)),
        (spaces.Box(0, 255, (2,), np.uint8), [255.0, 0], np.array([255, 0], np.uint8)),
        (spaces.Box(-1, 1, (3,)), np.zeros((1, 3)), np.zeros(3, np.float32)),
        (spaces.Box(-1, 1, (1,)), 0.5, np.float32([0.5])),
        (spaces.Sequence(spaces.Discrete(3)), [1, np.array(2)], (np.int64(1), np.int64(2))),
        (spaces.Sequence(NOTHING, stack=True), [[0.5], [1]], np.float32([[0.5], [1]])),
        (spaces.Sequence(NOTHING, stack=True), [], np.zeros((0, 1), np.float32)),
        (spaces.OneOf([NOTHING, spaces.Discrete(2)]), [1, 1.0], (np.int64(1), np.int64(1))),
    ],
)
def test_what_loses_nothing_is_converted(space: gym.Space[Any], action: Any, member: Any) -> None:
    converted = as_action(space, action)
    assert repr(converted) == repr(member)
    assert space.contains(converted)


def test_graphs_are_converted_part_by_part() -> None:
    space = spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(4))
    graph = as_action(space, ([[0.5, 1], [0, 0]], [3.0], [[0, 1]]))
    assert space.contains(graph)
    assert graph.nodes.tolist() == [[0.5, 1], [0, 0]]
    assert graph.edges.tolist() == [3]
    assert graph.edge_links.tolist() == [[0, 1]]


def test_an_observation_may_leave_its_bounds_but_not_its_kind() -> None:
    space = spaces.Box(-1, 1, (2,))
    assert as_observation(space, [5.0, -1]).tolist() == [5.0, -1.0]
    for wrong in (np.zeros(3), None, {"a": 1}, [[1, 2], [3]]):
        env = Scripted(space, spaces.Discrete(2), wrong)
        with pytest.raises(ValueError, match=r"Scripted, seed 0, timestep 0: the observation .*2,"):
            play_returns(env, Says(0), 1)


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (None, "None"),
        (np.array([1.0, 2.0]), r"\[1.0, 2.0\]"),
        (np.nan, "nan"),
        (np.array([np.inf]), r"\[inf\]"),
        ("1", "'1'"),
    ],
)
def test_a_reward_that_is_no_number_is_named_with_seed_and_step(reward: Any, said: str) -> None:
    env = Scripted(NOTHING, spaces.Discrete(2), np.zeros(1, np.float32), reward)
    wanted = rf"Scripted, seed 3, timestep 0: the reward is {said}, expected a finite number"
    with pytest.raises(ValueError, match=wanted):
        play_returns(env, Says(0), 1, seed=3)
    guarded = GuardedEnv("mine", env, lambda seed, step: None)
    guarded.reset(seed=4)
    with pytest.raises(EnvironmentFault, match=rf"mine, seed 4, step 1: the reward is {said}"):
        guarded.step(0)


@pytest.mark.parametrize("reward", [np.array([0.5]), np.float32(0.5), np.array(0.5)])
def test_a_reward_of_one_element_is_a_number(reward: Any) -> None:
    env = Scripted(NOTHING, spaces.Discrete(2), np.zeros(1, np.float32), reward)
    assert play_returns(env, Says(0), 1) == [1.0]


@pytest.mark.parametrize(
    ("info", "success"),
    [
        ({}, None),
        ({"success": None}, None),
        ({"success": np.array([])}, None),
        ({"success": np.array([True, False])}, False),
        ({"success": np.array([1.0, 1.0])}, True),
        ({"is_success": np.array([[True]])}, True),
        ({"success": False, "is_success": True}, False),
    ],
)
def test_success_may_be_an_array(info: dict[str, Any], success: bool | None) -> None:
    assert success_in(info) is success
    env = Scripted(NOTHING, spaces.Discrete(2), np.zeros(1, np.float32), 0.0, info)
    record_episodes(env, Says(0), 1, "my/success-v0")
    (episode,) = read_minari("my/success-v0")
    assert episode.info.get("success") is success


def test_every_row_of_a_batch_is_checked_and_so_is_their_number() -> None:
    seen, space = np.zeros(1, np.float32), spaces.Discrete(3)
    keys = [EpisodeKey("mine", index, index) for index in range(2)]

    def rollout(action: Any) -> list[Any]:
        envs = [Scripted(NOTHING, space, seen) for _ in keys]
        outcomes = list(play(envs, Says(action), keys, deterministic=True, guard=False))
        assert all(math.isclose(outcome.length, 2) for outcome in outcomes)
        return [env.actions for env in envs]

    assert rollout(np.array([[1.0], [2.0]])) == [[1, 1], [2, 2]]
    with pytest.raises(ValueError, match=r"shape \(3,\).*not probabilities"):
        rollout(np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match="gave 1 actions for 2 observations"):
        rollout(np.array([1]))


def test_a_batch_of_actions_with_empty_parts_has_its_rows() -> None:
    space = spaces.Dict(none=spaces.Dict(), nothing=spaces.Tuple([]), some=spaces.Discrete(3))
    keys = [EpisodeKey("mine", index, index) for index in range(2)]
    envs = [Scripted(NOTHING, space, np.zeros(1, np.float32)) for _ in keys]
    batch = {"none": {}, "nothing": (), "some": np.array([2, 1])}
    assert len(list(play(envs, Says(batch), keys, deterministic=True))) == 2
    assert [env.actions[0] for env in envs] == [
        {"none": {}, "nothing": (), "some": choice} for choice in (2, 1)
    ]


def test_what_an_environment_does_to_an_action_is_not_recorded() -> None:
    class Scales(Scripted):
        def step(self, action: Any) -> Any:
            action *= 100
            return super().step(action)

    env = Scales(NOTHING, spaces.Box(-1, 1, (2,)), np.zeros(1, np.float32))
    policy = Says(np.float32([0.25, 0.5]))
    policy.predict = lambda *_, **__: (np.float32([0.25, 0.5]), None)  # type: ignore[method-assign]
    record_episodes(env, policy, 1, "my/scales-v0")
    (episode,) = read_minari("my/scales-v0")
    assert episode.actions.tolist() == [[0.25, 0.5]] * 2
