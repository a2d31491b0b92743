"""MuJoCo and dm_control tasks: a seed alone decides an episode, rewards and limits are theirs."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from gato_gym.tasks import MissingPackageError, get_task, list_tasks

TASKS = (
    "mujoco-hopper", "mujoco-pusher", "mujoco-humanoid", "dm_control-cheetah-run",
    "dm_control-manipulator-bring_ball", "dm_control-finger-turn_easy",
    "dm_control-swimmer-swimmer6", "dm_control-reacher-hard",
)  # fmt: skip


def episode(env: gym.Env[Any, Any], seed: int, steps: int = 30) -> Any:
    """Observations and rewards under random actions, one after another."""
    box = env.action_space
    assert isinstance(box, gym.spaces.Box)
    generator = np.random.default_rng(seed)
    seen = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        action = generator.uniform(box.low, box.high).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert observation in env.observation_space
        seen.append(np.append(observation, reward))
        if terminated or truncated:
            break
    return np.concatenate(seen)


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_alone_decides_an_episode(task: str) -> None:
    """Whatever was played before, in this environment or in another."""
    env, other = get_task(task).make(), get_task(task).make()
    expected = episode(env, 7)
    for seed in (8, 9):
        assert not np.array_equal(expected, episode(other, seed, 50))
    other.reset()
    np.testing.assert_array_equal(episode(other, 7), expected)
    np.testing.assert_array_equal(episode(env, 7), expected)


@pytest.mark.parametrize("task", ["mujoco-ant", "dm_control-walker-walk"])
def test_resets_without_a_seed_go_on_from_the_last_one(task: str) -> None:
    env = get_task(task).make()
    first = [env.reset(seed=3)[0], env.reset()[0]]
    again = [env.reset(seed=3)[0], env.reset()[0]]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("suite", ["mujoco", "dm_control"])
def test_spaces_are_as_the_list_of_tasks_says(suite: str) -> None:
    tasks = list_tasks(suite)
    assert len(tasks) == {"mujoco": 11, "dm_control": 28}[suite]
    for task in tasks:
        env = task.make()
        words = [f"{space.shape[0]} number" for space in (env.observation_space, env.action_space)]  # type: ignore[index]
        assert task.observation.removesuffix("s") == words[0]
        assert task.action.removesuffix("s") == words[1]
        assert env.action_space.dtype == np.float32
        env.close()


def test_the_tasks_are_dm_controls_benchmarking_set() -> None:
    get_task("dm_control-cartpole-balance").make()  # imports dm_control without glfw's warning
    from dm_control import suite

    expected = {f"dm_control-{domain}-{name}" for domain, name in suite.BENCHMARKING}
    assert {task.id for task in list_tasks("dm_control")} == expected


@pytest.mark.parametrize(
    ("task", "limit"), [("dm_control-cartpole-balance", 1000), ("mujoco-reacher", 50)]
)
def test_limits_truncate(task: str, limit: int) -> None:
    env = get_task(task).make()
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape or (), np.float32)
    for step in range(1, limit + 1):
        *_, terminated, truncated, _ = env.step(action)
        assert not terminated
        assert truncated == (step == limit)


def test_rewards_and_observations_are_dm_controls_own() -> None:
    """Against dm_control itself, with the same random state and actions."""
    env = get_task("dm_control-walker-walk").make()
    observation, _ = env.reset(seed=5)
    from dm_control import suite

    state = np.random.RandomState(int(np.random.SeedSequence(5).generate_state(1)[0]))
    theirs = suite.load("walker", "walk", task_kwargs={"random": state})
    timestep = theirs.reset()
    for _ in range(5):
        parts = [np.ravel(timestep.observation[name]) for name in sorted(timestep.observation)]
        np.testing.assert_array_equal(observation, np.concatenate(parts))
        timestep = theirs.step(np.full(6, 0.5))
        observation, reward, *_ = env.step(np.full(6, 0.5, np.float32))
        assert reward == timestep.reward


def test_actions_beyond_the_box_are_clipped() -> None:
    inside, beyond = (get_task("dm_control-cheetah-run").make() for _ in range(2))
    for env in (inside, beyond):
        env.reset(seed=0)
    seen = inside.step(np.ones(6, np.float32))[0], beyond.step(np.full(6, 7.0, np.float32))[0]
    np.testing.assert_array_equal(*seen)


@pytest.mark.parametrize(
    ("task", "package", "extra"),
    [
        ("mujoco-ant", "mujoco", "mujoco"),
        ("dm_control-cheetah-run", "dm_control.suite", "dm_control"),
        ("dm_control-cheetah-run", "shimmy.dm_control_compatibility", "dm_control"),
    ],
)
def test_a_missing_package_names_the_command(
    task: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf'pip install "gato-gym\[{extra}\]"'):
        get_task(task).make()
