"""What every policy keeps: members of the action space, batches, fresh starts, no hidden state."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from every_policy import CASES, MAKERS

from gato_gym import get_task


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
        state, actions_taken = None, []
        starts = np.ones(3, bool)
        for _ in range(5):
            actions, state = policy.predict(observation, state, starts)
            actions_taken.append(np.asarray(actions))
            observation, _, ended, cut, _ = envs.step(actions)
            assert not (ended | cut).any(), "episodes this short would make the check vacuous"
            starts = np.zeros(3, bool)
        envs.close()
        assert np.array_equal(np.stack(actions_taken, 1), np.array(expected))

    def test_an_episodes_seed_decides_in_any_row(self, name: str, task: str) -> None:
        """Four rows see the same; two of them are of one seed, and act as it does alone."""
        env = get_task(task).make()
        policy = MAKERS[name](env)
        if name == "retrieve" or (name == "expert" and task.startswith("babyai")):
            assert policy.seed_episodes([1], None) is None  # it draws nothing
            env.close()
            return
        observation, _ = env.reset(seed=3)
        batch = gym.vector.utils.create_empty_array(env.observation_space, n=4)
        assert batch is not None
        batch = gym.vector.utils.concatenate(env.observation_space, [observation] * 4, batch)
        state, actions_taken = policy.seed_episodes([7, 8, 2**40, 7]), []
        other, alone = policy.seed_episodes([2**40]), []
        for _ in range(5):
            actions, state = policy.predict(batch, state)
            actions_taken.append(np.asarray(actions).reshape(4, -1))
            action, other = policy.predict(observation, other)
            alone.append(np.asarray(action).reshape(-1))
        rows = np.stack(actions_taken, 1)
        np.testing.assert_array_equal(rows[0], rows[3])
        np.testing.assert_array_equal(rows[2], np.array(alone))
        if name in ("jat", "dt") and isinstance(env.action_space, gym.spaces.Box):
            assert len({row.tobytes() for row in rows}) == 1  # numbers are not drawn
        elif name != "expert":
            assert len({row.tobytes() for row in rows}) == 3
        if name != "expert":
            with pytest.raises(ValueError, match=r"3 seeds for a state of 4 rows"):
                policy.seed_episodes([1, 2, 3], state)
        env.close()

    def test_its_repr_says_what_acts_and_where(self, name: str, task: str) -> None:
        env = get_task(task).make()
        said = repr(MAKERS[name](env))
        env.close()
        assert said.startswith(f"{type(MAKERS[name](env)).__name__}(")
        assert f"observation_space={env.observation_space}" in said
        assert f"action_space={env.action_space}" in said
        assert " object at 0x" not in said

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
