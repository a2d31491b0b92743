"""Environments in one process, without the copies that Stable-Baselines3's DummyVecEnv makes.

* :class:`LeanVecEnv` -- the same episodes as ``DummyVecEnv`` gives, with less work a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn


class LeanVecEnv(DummyVecEnv):
    """``DummyVecEnv`` for vectors of numbers, whose infos hold what algorithms read alone.

    That is ``terminal_observation`` and ``TimeLimit.truncated`` at an episode's end. What an
    environment says besides (dozens of reward terms in MuJoCo's) is dropped rather than copied.

    First episodes are cut short, each at another length: episodes that always last to their limit
    would otherwise begin at once in all environments, and an update see only one part of them.

    Args:
        env_fns: As for ``DummyVecEnv``.
        limit: Steps of an episode; the first ones end at even parts of it. None cuts none.
        repeat: Steps of an environment for each action; their rewards are added.
    """

    actions: NDArray[np.floating[Any]]

    def __init__(
        self,
        env_fns: list[Callable[[], gym.Env[Any, Any]]],
        *,
        limit: int | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(env_fns)
        rows = np.arange(1, self.num_envs + 1)
        self._cut = np.zeros(len(rows)) if limit is None else rows * limit // (len(rows) * repeat)
        self._steps, self._repeat = 0, repeat

    def step_wait(self) -> VecEnvStepReturn:
        """One step of every environment; those whose episode ended are reset."""
        observations = np.empty((self.num_envs, *self.observation_space.shape), np.float64)  # type: ignore[misc]
        rewards = np.empty(self.num_envs, np.float32)
        dones = np.zeros(self.num_envs, np.bool_)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._steps += 1
        for row, (env, action) in enumerate(zip(self.envs, self.actions, strict=True)):
            observation, rewards[row], terminated, truncated, _ = env.step(action)
            for _ in range(1, self._repeat):
                if terminated or truncated:
                    break
                observation, reward, terminated, truncated, _ = env.step(action)
                rewards[row] += reward
            truncated = truncated or self._steps == self._cut[row]
            if terminated or truncated:
                dones[row] = True
                infos[row]["terminal_observation"] = observation
                infos[row]["TimeLimit.truncated"] = truncated and not terminated
                observation, self.reset_infos[row] = env.reset()
            observations[row] = observation
        return observations, rewards, dones, infos
