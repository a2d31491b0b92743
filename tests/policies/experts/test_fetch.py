"""The scripts of the Fetch tasks."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from gato_gym.tasks import register_suite
from gato_gym.tasks.robotics import SUITE
from policies.experts import make_expert

register_suite(SUITE)
TASKS = {task.id.removeprefix("robotics-fetch-"): task for task in SUITE.tasks}
SEEDS = [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("name", "fewest"), [("pick-and-place", 6), ("push", 6), ("reach", 6), ("slide", 2)]
)
def test_the_script_reaches_the_goal(name: str, fewest: int) -> None:
    """Slide's in some episodes; random actions do in none of them."""
    task = TASKS[name]
    envs = SyncVectorEnv([task.make] * len(SEEDS), autoreset_mode="Disabled")
    expert = make_expert(task.id, envs)
    observation, _ = envs.reset(seed=SEEDS)
    arrived = np.zeros(len(SEEDS), bool)
    for _ in range(50):
        actions, _ = expert.predict(observation)
        observation, rewards, _, truncated, info = envs.step(actions)
        assert envs.action_space.contains(actions)
        assert ((rewards == 0) == (info["is_success"] == 1)).all()
        arrived |= rewards == 0
    assert truncated.all()
    assert arrived.sum() >= fewest


def test_a_seed_alone_decides_an_episode() -> None:
    first, second = TASKS["push"].make(), TASKS["push"].make()
    first.reset(seed=9)
    for _ in range(5):
        first.step(np.ones(4, np.float32))
    starts = [env.reset(seed=2)[0] for env in (first, second)]
    for _ in range(5):
        moves = [env.step(np.full(4, -0.5, np.float32))[0] for env in (first, second)]
        starts = [*starts, *moves]
    for left, right in zip(starts[::2], starts[1::2], strict=True):
        for key in ("observation", "achieved_goal", "desired_goal"):
            np.testing.assert_array_equal(left[key], right[key])
