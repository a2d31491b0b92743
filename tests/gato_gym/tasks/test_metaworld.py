"""Meta-World tasks: a seed alone decides an episode, and the spaces are what they say."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from gato_gym.tasks import get_task, list_tasks

TASKS = ("metaworld-reach", "metaworld-bin-picking", "metaworld-hammer", "metaworld-lever-pull")


def observations(env: gym.Env[Any, Any], seed: int, steps: int = 12) -> Any:
    """What an episode of random actions shows."""
    generator = np.random.default_rng(seed)
    seen = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        action = generator.uniform(-1, 1, 4).astype(np.float32)
        observation, reward, *_ = env.step(action)
        seen.append(np.append(observation, reward))
    return np.concatenate(seen)


def test_there_are_mt50_tasks() -> None:
    tasks = list_tasks("metaworld")
    assert len(tasks) == 50
    assert sorted(task.env_id for task in tasks) == sorted(ALL_V3_ENVIRONMENTS)


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_alone_decides_an_episode(task: str) -> None:
    """Whatever was played before, in this environment or another, by any number of steps."""
    env = get_task(task).make()
    expected = observations(env, 7)
    assert not np.array_equal(expected, observations(env, 8))
    np.random.seed(0)  # noqa: NPY002  (Meta-World can draw from this generator)
    np.testing.assert_array_equal(observations(env, 7), expected)
    env.reset(seed=9)
    for _ in range(60):
        env.step(np.array([0.3, -1.0, -1.0, 1.0], np.float32))
    np.testing.assert_array_equal(observations(env, 7), expected)
    np.testing.assert_array_equal(observations(get_task(task).make(), 7), expected)


def test_resets_without_a_seed_go_on_from_the_last_one() -> None:
    env = get_task("metaworld-reach").make()

    def goals() -> list[Any]:
        return [env.reset(seed=3)[0], env.reset()[0], env.reset()[0]]

    first, again = goals(), goals()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])


@pytest.mark.parametrize("task", TASKS)
def test_the_goal_is_visible(task: str) -> None:
    env = get_task(task).make()
    observation, _ = env.reset(seed=1)
    np.testing.assert_allclose(observation[-3:], env.unwrapped._target_pos, atol=1e-9)  # type: ignore[attr-defined]
    observation, *_ = env.step(np.zeros(4, np.float32))
    np.testing.assert_allclose(observation[-3:], env.unwrapped._target_pos, atol=1e-9)  # type: ignore[attr-defined]


def test_spaces_and_actions_beyond_them() -> None:
    inside, beyond = (get_task("metaworld-push").make() for _ in range(2))
    seen = [env.reset(seed=0)[0] for env in (inside, beyond)]
    assert inside.observation_space.shape == (39,)
    assert inside.action_space == gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    for _ in range(5):
        seen = [
            inside.step(np.array([1, -1, 1, -1], np.float32))[0],
            beyond.step(np.array([3, -2, 1, -9], np.float32))[0],
        ]
    assert seen[0] in inside.observation_space
    np.testing.assert_array_equal(seen[0], seen[1])


def test_an_episode_lasts_five_hundred_steps() -> None:
    env = get_task("metaworld-reach").make()
    env.reset(seed=0)
    steps, truncated = 0, False
    while not truncated:
        _, reward, terminated, truncated, info = env.step(np.zeros(4, np.float32))
        steps += 1
        assert not terminated
        assert isinstance(reward, float)
        assert info["success"] is False
    assert steps == 500
