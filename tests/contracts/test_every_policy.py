"""What every policy keeps: members of the action space, batches, fresh starts, no hidden state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from gato_gym import get_task
from policies import GatoPolicy, Policy, make_policy
from policies.configuration import NetworkConfig

SMALL = NetworkConfig(
    width=32, layers=1, heads=2, head_size=16, feed_forward=32, window=32, prompt_tokens=8,
    text_rank=8, vector_hidden=16, grid_channels=8, grid_groups=2,
)  # fmt: skip


def gato(env: Any) -> Policy:
    torch.set_num_threads(1)
    return GatoPolicy.create(env, config=SMALL)


MAKERS: dict[str, Callable[[Any], Policy]] = {
    "random": lambda env: make_policy("random", env=env),
    "expert": lambda env: make_policy("expert", env=env),
    "gato": gato,
}
CASES = [
    (name, task)
    for name in MAKERS
    for task in ("babyai-unlock-pickup", "metaworld-drawer-close", "mujoco-reacher")
]


@pytest.mark.parametrize(("name", "task"), CASES)
class TestEveryPolicy:
    """One policy in one environment, or in three."""

    def test_single_observations(self, name: str, task: str) -> None:
        env = get_task(task).make()
        policy = MAKERS[name](env)
        observation, _ = env.reset(seed=3)
        state = None
        for _ in range(5):
            action, state = policy.predict(observation, state)
            assert env.action_space.contains(action)
            observation, *_ = env.step(action)
        env.close()

    def test_a_vector_environment_plays_the_same_episodes(self, name: str, task: str) -> None:
        expected = [self.play_alone(name, task, seed) for seed in (3, 4, 5)]
        envs = gym.vector.SyncVectorEnv([get_task(task).make] * 3)
        policy = MAKERS[name](envs)
        observation, _ = envs.reset(seed=[3, 4, 5])
        state, found = None, []
        starts = np.ones(3, bool)
        for _ in range(5):
            actions, state = policy.predict(observation, state, starts)
            found.append(np.asarray(actions))
            observation, _, ended, cut, _ = envs.step(actions)
            assert not (ended | cut).any(), "episodes this short would make the check vacuous"
            starts = np.zeros(3, bool)
        envs.close()
        assert np.array_equal(np.stack(found, 1), np.array(expected))

    def play_alone(self, name: str, task: str, seed: int) -> list[Any]:
        env = get_task(task).make()
        policy = MAKERS[name](env)
        observation, _ = env.reset(seed=seed)
        state, actions = None, []
        for _ in range(5):
            action, state = policy.predict(observation, state)
            actions.append(action)
            observation, *_ = env.step(action)
        env.close()
        return actions

    def test_wrong_episode_start_is_refused(self, name: str, task: str) -> None:
        env = get_task(task).make()
        policy = MAKERS[name](env)
        observation, _ = env.reset(seed=0)
        with pytest.raises(ValueError, match="episode_start has 2 entries for 1"):
            policy.predict(observation, episode_start=np.array([True, False]))
        env.close()
