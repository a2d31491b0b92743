"""Delayed actions and noisy observations, against what is worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from benchmarks.protocol import Protocol
from gato_gym.options import PlanOptions
from gato_gym.tasks import Task, get_task, list_tasks
from policies.random_policy import RandomPolicy
from policies.rollout.disturbances import (
    DelayedActions,
    Disturbance,
    NoisyObservations,
    number_boxes,
    number_ranges,
)
from policies.rollout.env_batch import make_rows
from policies.rollout.vector_rollout import play

PIXELS = spaces.Box(0, 255, (2, 3), np.uint8)
NUMBERS = spaces.Box(-np.inf, np.inf, (3,), np.float32)


class Echo(gym.Env[Any, Any]):
    """Shows a fixed observation and notes the actions that it is given."""

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.actions: list[Any] = []
        self.shown: Any = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.actions = []
        return self.shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        return self.shown, 0.0, False, False, {}


@pytest.mark.parametrize(
    ("space", "idle", "chosen"),
    [
        (spaces.Discrete(3, start=2), 2, [3, 4, 2]),
        (spaces.Box(0.5, 1, (1,)), [0.5], [[0.75], [1.0], [0.5]]),
        (spaces.MultiDiscrete([3, 2]), [0, 0], [[2, 1], [1, 1], [0, 1]]),
        (spaces.MultiBinary(2), [0, 0], [[1, 1], [1, 0], [0, 1]]),
    ],
)
def test_each_action_takes_effect_later(space: gym.Space[Any], idle: Any, chosen: Any) -> None:
    echo = Echo(NUMBERS, space)
    echo.shown = np.zeros(3, np.float32)
    env = DelayedActions(echo, 1)
    for _ in range(2):  # the second episode begins idle too
        env.reset()
        given = np.empty_like(np.asarray(chosen[0]))  # one array for all, as callers reuse theirs
        for action in chosen:
            given[...] = action
            env.step(given)
        np.testing.assert_array_equal(np.array(echo.actions), np.array([idle, *chosen[:-1]]))


def test_actions_of_other_spaces_are_refused() -> None:
    env = DelayedActions(Echo(NUMBERS, spaces.Text(3)), 1)
    with pytest.raises(ValueError, match="cannot be delayed: expected Discrete, Box"):
        env.reset()


def test_noise_has_the_deviations_that_are_given() -> None:
    echo = Echo(spaces.Box(-1e9, 1e9, (2, 50_000), np.float64), spaces.Discrete(2))
    echo.shown = np.linspace(-1000, 1000, 100_000).reshape(2, -1)
    deviations = {"": np.array([[0.5], [2.0]])}
    noise = NoisyObservations(echo, deviations).reset(seed=5)[0] - echo.shown
    assert (np.abs(noise.mean(axis=1)) < 3 * np.array([0.5, 2.0]) / 50_000**0.5).all()
    np.testing.assert_allclose(noise.std(axis=1), [0.5, 2.0], rtol=0.02)


def test_noise_stays_in_the_space_and_leaves_what_is_not_named() -> None:
    space = spaces.Dict(
        {
            "frame": PIXELS,
            "pair": spaces.Tuple([NUMBERS, spaces.Discrete(5)]),
            "symbols": PIXELS,
            "text": spaces.Text(9),
        }
    )
    assert list(number_boxes(space, ("symbols",))) == ["frame", "pair/0"]
    echo = Echo(space, spaces.Discrete(2))
    frame = np.array([[0, 3, 250], [255, 200, 128]], np.uint8)
    numbers = np.array([0, 1, -2], np.float32)
    echo.shown = {"frame": frame, "pair": (numbers, 4), "symbols": frame, "text": "go"}
    env = NoisyObservations(echo, {"frame": np.full((2, 3), 50.0), "pair/0": np.array([0, 1, 1])})
    seen = env.reset(seed=1)[0]
    assert space.contains(seen)
    assert (seen["frame"] != frame).any()
    assert seen["pair"][0][0] == 0
    assert (seen["pair"][0][1:] != numbers[1:]).all()
    assert (seen["pair"][1], seen["text"]) == (4, "go")
    np.testing.assert_array_equal(seen["symbols"], frame)
    np.testing.assert_array_equal(frame[0], [0, 3, 250], "the environment's own is as it was")
    again = env.step(0)[0]
    assert (again["pair"][0][1:] != seen["pair"][0][1:]).all(), "drawn anew at every timestep"


class Walk(gym.Env[Any, Any]):
    """Shows how many steps it has taken, its seed, its last action, and a number that stays."""

    observation_space = spaces.Dict(
        {
            "far": spaces.Box(-np.inf, np.inf, (3,)),
            "near": spaces.Box(np.array([-1, 0]), np.array([3, 1e9]), dtype=np.float64),
            "symbols": spaces.Box(0, 255, (2,), np.uint8),
        }
    )
    action_space = spaces.Discrete(2, start=5)

    def _shown(self, action: int) -> dict[str, Any]:
        return {
            "far": np.array([self.steps, self.number, 7], np.float32),
            "near": np.array([0, action]),
            "symbols": np.zeros(2, np.uint8),
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        assert seed is not None
        self.steps, self.number = 0, seed - 1_000_000
        return self._shown(5), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._shown(int(action)), 0.0, self.steps == 20, False, {}


def test_a_range_is_that_of_the_bounds_or_what_random_play_shows() -> None:
    task = replace(
        get_task("mujoco-hopper"),
        id="walk",
        env_id="of this test alone",
        options=PlanOptions(grids=("symbols",)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "make", lambda *args, **kwargs: Walk())
        ranges = number_ranges(task)
    assert {name: each.tolist() for name, each in ranges.items()} == {
        "far": [20.0, 9.0, 0.0],  # steps 0 to 20, seeds 0 to 9, nothing
        "near": [4.0, 1.0],  # its bounds; actions 5 and 6
    }


def test_games_have_noise_of_their_pixels_and_levels_have_none() -> None:
    ranges = number_ranges(get_task("atari-pong"))
    assert {name: set(each.reshape(-1)) for name, each in ranges.items()} == {"": {255.0}}
    assert number_ranges(get_task("babyai-open")) == {}


def test_noise_follows_from_the_seed_and_leaves_the_environment_its_own() -> None:
    task = get_task("mujoco-hopper")
    plain, noisy, again = (
        task.make(),
        *(Disturbance(observation_noise=0.01).making(task)() for _ in range(2)),
    )
    starts = [env.reset(seed=7)[0] for env in (plain, noisy, again)]
    assert (starts[0] != starts[1]).any()
    np.testing.assert_array_equal(starts[1], starts[2])
    shares = (starts[1] - starts[0]) / number_ranges(task)[""]
    assert 0.001 < np.abs(shares).max() < 0.05
    for env in (plain, noisy):
        for _ in range(5):
            env.step(np.full(3, 0.5, np.float32))
    np.testing.assert_array_equal(plain.unwrapped.data.qpos, noisy.unwrapped.data.qpos)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["delayed-actions", "noisy-observations"])
def test_a_protocol_of_any_suite_plays_the_same_seeds_otherwise(name: str) -> None:
    tasks = [*list_tasks("mujoco", "hopper"), *list_tasks("babyai", "open")]
    plain = Protocol.of_tasks(tasks, episodes=3, seed=0)
    other = Protocol.of_tasks(tasks, episodes=3, seed=0, name=name)
    assert Protocol.from_json(other.to_json()) == other
    assert other.hash != plain.hash
    returns = []
    for protocol in (plain, other):
        keys = protocol.episodes_of("mujoco-hopper")
        envs = make_rows(get_task("mujoco-hopper"), 2, keys[0].disturbance)
        policy = RandomPolicy(envs.single_observation_space, envs.single_action_space)
        results = sorted(play(envs, policy, keys, deterministic=False), key=lambda r: r.key.index)
        returns.append([result.total_return for result in results])  # type: ignore[union-attr]
    assert plain.episodes_of("mujoco-hopper") == other.episodes_of("mujoco-hopper")
    assert (returns[0] == returns[1]) == (name == "noisy-observations"), "random play sees nothing"
