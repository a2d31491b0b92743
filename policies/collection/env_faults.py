"""Environments at fault: which task, episode and step, and of what kind.

* :class:`GuardedEnv` -- an environment that raises
  :class:`~policies.rollout.faults.EnvironmentFault`, and says where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from policies.rollout.faults import EnvironmentFault
from policies.rollout.members import as_reward

Beat = Callable[[int, int], None]
"""Called with the seed and the step that an environment is about to play."""


class GuardedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose faults name the task, the seed and the step.

    Args:
        task_id: The task.
        env: Its environment.
        beat: Told the seed and the number of each step before it is played; 0 is the reset.
    """

    def __init__(self, task_id: str, env: gym.Env[Any, Any], beat: Beat) -> None:
        super().__init__(env)
        self._task, self._beat = task_id, beat
        self._seed = self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As an environment's reset.

        Raises:
            EnvironmentFault: It raised, or the observation has a NaN.
        """
        self._seed, self._step = -1 if seed is None else seed, 0
        self._beat(self._seed, 0)
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise self._fault(f"reset raised {error!r}") from error
        self._check(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As an environment's step.

        Raises:
            EnvironmentFault: It raised, an observation has a NaN, or the reward is not finite.
        """
        self._step += 1
        self._beat(self._seed, self._step)
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise self._fault(f"the environment raised {error!r}") from error
        try:
            value = as_reward(reward)
        except ValueError as error:
            raise self._fault(str(error)) from error
        self._check(observation)
        return observation, value, bool(terminated), bool(truncated), info

    def _check(self, observation: Any) -> None:
        path = nan_in(observation)
        if path is not None:
            name = f" ({path})" if path else ""
            raise self._fault(f"the observation{name} holds NaN, expected numbers")

    def _fault(self, what: str) -> EnvironmentFault:
        return EnvironmentFault(place(self._task, self._seed, self._step) + what)


def place(task_id: str, seed: int, step: int) -> str:
    """Where a fault was, as its message begins."""
    return f"{task_id}, seed {seed}, step {step}: "


def nan_in(observation: Any, path: str = "") -> str | None:
    """The path of the first part with a NaN, or None; keys are joined by "/".

    Example:
        >>> nan_in({"a": np.zeros(2), "b": (np.array([np.nan]), 1)})
        'b/0'
        >>> nan_in(np.zeros(2)) is None
        True
    """
    if isinstance(observation, dict | tuple):
        keys = observation if isinstance(observation, dict) else range(len(observation))
        for key in keys:
            place_of_nan = nan_in(observation[key], f"{path}/{key}".lstrip("/"))
            if place_of_nan is not None:
                return place_of_nan
        return None
    array = np.asarray(observation)
    return path if array.dtype.kind in "fc" and bool(np.isnan(array).any()) else None
