"""A policy's random numbers belong to the episode: to its seed, and to nothing else of it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from small import SMALL
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from gato_gym import PlanOptions
from policies import GatoPolicy, Policy
from policies.chance import seed_episodes
from policies.collection.record import play_returns
from policies.collection.scores import play_scores
from policies.expert_training.evaluation import evaluate
from policies.experts.mlp import ExpertNetwork, TrainedExpert
from policies.gato.multitask import MultiTaskPolicy
from policies.random_policy import RandomPolicy

MANY = spaces.Discrete(1000)
SEEN = spaces.Box(-1, 1, (3,), np.float32)


class Alike(gym.Env[Any, Any]):
    """Every episode shows the same; five steps that pay what was chosen."""

    observation_space, action_space = SEEN, MANY

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.clock = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.clock += 1
        return np.full(3, self.clock / 10, np.float32), float(action), self.clock == 5, False, {}


def network(env: gym.Env[Any, Any]) -> GatoPolicy:
    return GatoPolicy.create(env, config=SMALL, options=PlanOptions(vector_size=16))


def chance(env: gym.Env[Any, Any]) -> RandomPolicy:
    return RandomPolicy(env.observation_space, env.action_space)


MAKERS: dict[str, Callable[[gym.Env[Any, Any]], Policy]] = {"random": chance, "gato": network}


def gaussian() -> TrainedExpert:
    def layer(outputs: int, inputs: int) -> Any:
        weight = np.random.default_rng(outputs).normal(size=(outputs, inputs))
        return weight.astype(np.float32), np.zeros(outputs, np.float32)

    expert = ExpertNetwork(
        np.full(3, 0.37, np.float32), np.full(3, 3.0, np.float32), (layer(8, 3),), layer(2, 8),
        layer(2, 8), "tanh", squash=False,
    )  # fmt: skip
    return TrainedExpert(expert, SEEN, spaces.Box(-9, 9, (2,), np.float32))


def test_random_actions_are_those_of_a_space_that_the_seeds_seeded() -> None:
    policy = RandomPolicy(SEEN, MANY, seed=4)
    state, drawn = policy.seed_episodes([77]), []
    for _ in range(6):
        action, state = policy.predict(np.zeros(3, np.float32), state)
        drawn.append(int(action))
    space = spaces.Discrete(1000)
    space.seed(int(np.random.default_rng([4, 77, 0]).integers(2**31)))
    assert drawn == [int(space.sample()) for _ in range(6)]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_seeds_decide_returns_whatever_the_number_of_rows(name: str, rows: int) -> None:
    policy = MAKERS[name](Alike())
    one_by_one = play_returns(Alike(), policy, 8, deterministic=False)
    assert len(set(one_by_one)) == 8, "episodes that begin alike are not alike"
    scores = play_scores([Alike() for _ in range(rows)], policy, 8)
    assert list(scores.returns) == one_by_one


def test_an_experts_evaluation_is_the_same_side_by_side_and_leaves_environments_open() -> None:
    class Paid(Alike):
        action_space = spaces.Box(-9, 9, (2,), np.float32)

        def step(self, action: Any) -> Any:
            return super().step(action.sum())

    policy, envs = gaussian(), [Paid() for _ in range(3)]
    for env in envs:
        env.close = lambda: 1 / 0  # type: ignore[method-assign]
    alone = evaluate(policy, envs[:1], 7, first_seed=2**31)
    assert evaluate(policy, envs, 7, first_seed=2**31) == alone
    assert len(set(alone)) == 1, "an expert plays its likeliest actions"
    policy.samples = True
    sampled = evaluate(policy, envs, 7, first_seed=2**31)
    assert sampled == evaluate(policy, envs[:1], 7, first_seed=2**31)
    assert len(set(sampled)) == 7


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("name", MAKERS)
def test_vector_environments_of_either_kind_give_the_same_returns(name: str, kind: Any) -> None:
    policy, seeds = MAKERS[name](Alike()), [3, 1, 4, 2]
    expected = [play_returns(Alike(), policy, 1, seed=s, deterministic=False)[0] for s in seeds]
    envs = kind([Alike] * 4)
    observations, _ = envs.reset(seed=seeds)
    state, returns = policy.seed_episodes(seeds), np.zeros(4)
    for _ in range(5):
        actions, state = policy.predict(observations, state)
        observations, rewards, *_ = envs.step(actions)
        returns += rewards
    envs.close()
    assert returns.tolist() == expected


def test_a_row_that_resets_itself_goes_on_from_its_seed_in_any_row() -> None:
    policy, blank = chance(Alike()), np.zeros((1, 3), np.float32)
    again = np.array([True])

    def second(seeds: list[int], row: int) -> int:
        rows = len(seeds)
        _, state = policy.predict(blank.repeat(rows, 0), policy.seed_episodes(seeds))
        actions, _ = policy.predict(blank.repeat(rows, 0), state, again.repeat(rows))
        return int(actions[row])

    assert second([8, 9, 10], 1) == second([9], 0) != second([8], 0)
    first, _ = policy.predict(blank, policy.seed_episodes([9]))
    assert second([9], 0) != first[0]


@pytest.mark.parametrize("name", MAKERS)
def test_without_seeds_episodes_that_begin_alike_are_not_alike(name: str) -> None:
    policy = MAKERS[name](Alike())
    envs = DummyVecEnv([Alike] * 3)
    returns, _ = evaluate_policy(
        policy,  # type: ignore[arg-type]
        envs,
        n_eval_episodes=9,
        deterministic=False,
        return_episode_rewards=True,
        warn=False,
    )
    assert len(set(returns)) == 9
    policy = MAKERS[name](Alike())
    again, _ = evaluate_policy(
        policy,  # type: ignore[arg-type]
        envs,
        n_eval_episodes=9,
        deterministic=False,
        return_episode_rewards=True,
        warn=False,
    )
    assert again == returns


def test_calls_without_a_state_vary_with_what_is_seen() -> None:
    policy = chance(Alike())
    drawn = {int(policy.predict(np.full(3, n / 20, np.float32))[0]) for n in range(10)}
    assert len(drawn) > 5


FORMS = [
    (SEEN, [0.1, -0.7, 0.3], [np.float32, np.float64, list]),
    (spaces.Box(-9, 9, (3,), np.int64), [1, -7, 3], [np.int64, np.int32, np.float64, list]),
    (spaces.Discrete(9), 4, [np.int64, np.int32, np.uint8, int]),
    (spaces.MultiDiscrete([5, 6]), [2, 3], [np.int64, np.int8, list]),
    (spaces.MultiBinary(3), [1, 0, 1], [np.int8, np.int64, bool, list]),
]


def formed(value: Any, form: Any) -> Any:
    if form in (list, int):
        return value
    array = np.array(value, form)
    return array if array.ndim else array[()]


@pytest.mark.parametrize(("space", "value", "forms"), FORMS, ids=lambda each: str(each)[:20])
@pytest.mark.parametrize("name", MAKERS)
def test_the_dtype_of_an_observation_changes_no_action(
    name: str, space: gym.Space[Any], value: Any, forms: list[Any]
) -> None:
    class Shown(Alike):
        observation_space = spaces.Dict({"a": space, "words": spaces.Text(9)})

    nested, plain = MAKERS[name](Shown()), RandomPolicy(space, MANY)
    in_a_dict, alone = set(), set()
    for form in forms:
        seen = formed(value, form)
        in_a_dict.add(int(nested.predict({"a": seen, "words": "go"})[0]))
        alone.add(int(plain.predict(seen)[0]))
        batch = {"a": np.asarray(seen)[None].repeat(2, 0), "words": ("go", "stay")}
        in_a_dict.add(int(nested.predict(batch)[0][0]))
    assert len(in_a_dict) == len(alone) == 1


def test_one_environment_and_a_vector_of_it_draw_the_same() -> None:
    """A vector environment makes float32 of what an environment gives in float64."""

    class Loose(Alike):
        def reset(self, **given: Any) -> Any:
            super().reset(**given)
            return np.random.default_rng(given["seed"]).uniform(-1, 1, 3), {}

    for policy in (chance(Loose()), gaussian()):
        for seed in range(20):
            alone, _ = policy.predict(Loose().reset(seed=seed)[0])
            batch, _ = SyncVectorEnv([Loose]).reset(seed=seed)
            assert batch.dtype == np.float32
            np.testing.assert_array_equal(policy.predict(batch)[0][0], alone)


def test_policies_of_other_libraries_play_as_they_do() -> None:
    class Plain:
        def predict(self, observation: Any, state: Any = None, *_: Any, **__: Any) -> Any:
            return np.int64(0), "theirs"

    assert seed_episodes(Plain(), [1, 2], "theirs") == "theirs"
    assert seed_episodes(Plain(), [1, 2]) is None
    assert play_returns(Alike(), Plain(), 2) == [0.0, 0.0]


def test_rows_of_several_policies_have_their_own_seeds() -> None:
    first = network(Alike())
    both = MultiTaskPolicy([first, first])
    blank = np.zeros((2, 3), np.float32)
    state = both.seed_episodes([[5, 6], [7, 5]])
    actions, state = both.predict([blank, blank], state)
    assert actions[0][0] == actions[1][1]
    assert len({*actions[0], *actions[1]}) == 3
    alone, _ = first.predict(blank[:1], first.seed_episodes([7]))
    assert alone[0] == actions[1][0]
    state = both.seed_episodes([[None, None], [None, 6]], state)
    later, _ = both.predict([blank, blank], state)
    assert later[1][1] == actions[0][1]
    with pytest.raises(ValueError, match="seeds of 1 policies for 2"):
        both.seed_episodes([[1]])
    with pytest.raises(ValueError, match="1 seeds for a state of 2 rows"):
        both.seed_episodes([[1], [2, 3]], state)


@pytest.mark.parametrize("name", MAKERS)
def test_states_with_seeds_are_copied_and_sent(name: str) -> None:
    policy, blank = MAKERS[name](Alike()), np.zeros((2, 3), np.float32)
    state = policy.seed_episodes([5, None])
    expected, _ = policy.predict(blank, copy.deepcopy(state))
    actions, _ = policy.predict(blank, pickle.loads(pickle.dumps(state)))
    np.testing.assert_array_equal(actions, expected)


def test_seeds_start_rows_whatever_episode_start_says() -> None:
    policy, blank = network(Alike()), np.zeros((1, 3), np.float32)
    first, state = policy.predict(blank, policy.seed_episodes([5]), np.array([False]))
    _, state = policy.predict(blank, state)
    again, _ = policy.predict(blank, policy.seed_episodes([5], state), np.array([False]))
    assert first[0] == again[0]
