"""Where episodes of a training begin: standing up is learned from all heights."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("mujoco")

from gato_gym.tasks import get_task
from policies.expert_training.recipe import Recipe
from policies.expert_training.sb3.algorithms import make_algorithm
from policies.expert_training.sb3.initial_states import RisenStarts, lowest


def length(env: gym.Env[Any, Any]) -> int:
    """Steps of an episode in which nothing is done."""
    for step in range(1, 1001):
        *_, terminated, truncated, _ = env.step(np.zeros(17, np.float32))
        if terminated or truncated:
            return step
    return 0


def test_episodes_begin_at_all_heights_and_those_are_short() -> None:
    env = RisenStarts(get_task("mujoco-standup").make(), 0.5, limit=9)
    heights: dict[bool, list[float]] = {True: [], False: []}
    facing = []
    for seed in range(60):
        observation, _ = env.reset(seed=seed)
        assert env.observation_space.contains(observation)
        body = env.unwrapped
        risen = env._left > 0
        assert not risen or lowest(body.model, body.data) == pytest.approx(0.01)
        assert not risen or not any(
            contact.dist < 0 and 0 in contact.geom for contact in body.data.contact
        )
        heights[risen].append(observation[0])
        if risen:
            facing.append(body.data.body("torso").xmat[8])  # of what lies on its back: 1
    assert 20 <= len(heights[True]) <= 40
    assert max(heights[False]) < 0.13
    assert min(heights[True]) < 0.3
    assert max(heights[True]) > 1.0
    assert np.ptp(heights[True]) > 0.8
    assert min(facing) < -0.5
    assert max(facing) > 0.5

    always, never = (RisenStarts(env.env, share, limit=9) for share in (1.0, 0.0))
    always.reset(seed=0)
    assert length(always) == 9
    never.reset(seed=0)
    assert length(never) == 1000


def test_a_risen_episode_ends_when_the_body_falls() -> None:
    env = RisenStarts(get_task("mujoco-standup").make(), 1.0, limit=1000)
    fell = 0
    for seed in range(20):
        start, _ = env.reset(seed=seed)
        steps = length(env)
        last = env.unwrapped.data.qpos[2]
        if steps < 1000:
            fell += 1
            assert last < env._highest - 0.3
        else:
            assert start[0] < 0.9, "nothing is done, so it cannot have stayed up"
    assert fell >= 10


def test_their_seed_decides_them() -> None:
    env = RisenStarts(get_task("mujoco-standup").make(), 0.8)
    first, _ = env.reset(seed=3)
    env.reset()
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)


def test_other_bodies_are_refused() -> None:
    recipe = Recipe("sac", 100, 1, 1, risen=0.5, num_envs=1)
    with pytest.raises(ValueError, match="HalfCheetahEnv cannot begin risen"):
        make_algorithm(recipe, get_task("mujoco-halfcheetah").make, seed=0)
