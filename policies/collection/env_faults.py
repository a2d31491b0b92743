"""Environments at fault: which task, episode and step, and of what kind.

* :class:`GuardedEnv` -- an environment that raises
  :class:`~policies.rollout.faults.EnvironmentFault`, and says where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from policies.rollout.faults import FAULTS, EnvironmentFault
from policies.rollout.members import as_observation, as_reward

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
            EnvironmentFault: It raised, or showed what is no observation of its space.
        """
        self._seed, self._step = -1 if seed is None else seed, 0
        self._beat(self._seed, 0)
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except FAULTS as error:
            raise self._fault(f"reset raised {error!r}") from error
        return self._observed(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As an environment's step.

        Raises:
            EnvironmentFault: It raised, showed what is no observation of its space, or the reward
                is no finite number of float32.
        """
        self._step += 1
        self._beat(self._seed, self._step)
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except FAULTS as error:
            raise self._fault(f"the environment raised {error!r}") from error
        try:
            value = as_reward(reward)
        except ValueError as error:
            raise self._fault(str(error)) from error
        return self._observed(observation), value, bool(terminated), bool(truncated), info

    def _observed(self, observation: Any) -> Any:
        try:
            return as_observation(self.env.observation_space, observation, accepts_nan=False)
        except ValueError as error:
            raise self._fault(str(error)) from error

    def _fault(self, what: str) -> EnvironmentFault:
        return EnvironmentFault(place(self._task, self._seed, self._step) + what)


def place(task_id: str, seed: int, step: int) -> str:
    """Where a fault was, as its message begins."""
    return f"{task_id}, seed {seed}, step {step}: "
