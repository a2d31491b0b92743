"""Environments that EnvPool simulates, one at a time (arXiv 2206.10558).

* :class:`EnvPoolEnv` -- one of them, as an environment with Gymnasium's seeding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from gato_gym.tasks.task import MissingPackageError, need


class EnvPoolEnv(gym.Env[Any, Any]):
    """An environment of EnvPool's, whose seed alone decides an episode.

    EnvPool takes seeds when a pool is made, so that each episode has a pool of its own.

    Args:
        env_id: EnvPool's id, such as ``CoinrunHard-v0``.
        options: EnvPool's options of it.

    Raises:
        MissingPackageError: EnvPool is not installed, or lacks a library of the system.
    """

    def __init__(self, env_id: str, options: Mapping[str, Any]) -> None:
        self._make = need("envpool", "envpool").make_gymnasium
        self._env_id, self._options = env_id, dict(options)
        pool = self._start(0)
        self.observation_space, self.action_space = pool.observation_space, pool.action_space

    @staticmethod
    def folder() -> Path:
        """Where EnvPool is installed.

        Raises:
            MissingPackageError: It is not.
        """
        return Path(need("envpool", "envpool").__file__).parent

    def _start(self, seed: int) -> Any:
        try:
            self._pool = self._make(
                self._env_id, num_envs=1, num_threads=1, seed=seed, **self._options
            )
        except ImportError as error:
            raise MissingPackageError(f"EnvPool cannot make {self._env_id}: {error}") from error
        return self._pool

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; without a seed, the last seed's sequence continues."""
        super().reset(seed=seed)
        observations, infos = self._start(int(self.np_random.integers(2**31))).reset()
        return _first(observations), self._info(infos)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of the environment."""
        observations, rewards, terminated, truncated, infos = self._pool.step(np.array([action]))
        ends = bool(terminated[0]), bool(truncated[0])
        return _first(observations), float(rewards[0]), *ends, self._info(infos)

    def _info(self, infos: Mapping[str, Any]) -> dict[str, Any]:
        """What EnvPool reports of the episode; ``solved`` becomes ``success``."""
        info = {key: value[0] for key, value in infos.items() if key not in ("env_id", "players")}
        return info | ({"success": bool(info["solved"])} if "solved" in info else {})


def _first(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: _first(value) for key, value in observations.items()}
    return observations[0].copy() if observations[0].shape else np.int64(observations[0])
