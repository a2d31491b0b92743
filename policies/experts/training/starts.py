"""Where a training's episodes begin, other than where the task's own do.

* :class:`RisenStarts` -- HumanoidStandup's episodes from anywhere between lying and standing.

A body that has to stand up first learns to sit, and so does not meet what comes after. Where
episodes begin there as well it meets that from the start (Florensa et al., arXiv 1707.05300).
Evaluations begin as the task itself does.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

FROM_TORSO_TO_FEET = 1.13
"""Metres, in the pose of Gymnasium's humanoidstandup.xml, which lies along x."""

THICKNESS = 0.08
"""Metres from the middle of a limb to its skin, about."""

JOINTS, SPEEDS = 0.4, 0.3
"""Joints begin so far from straight at most, in radians, and turn as fast at most, in rad/s."""


class RisenStarts(gym.Wrapper[Any, Any, Any, Any]):
    """HumanoidStandup-v5, part of whose episodes begin with the body turned up around its feet.

    Args:
        env: The task, before any change of its observations.
        share: Part of the episodes that begin so; the others as the task's own.
        limit: Timesteps after which these are truncated: once they lie, they teach nothing new.

    Raises:
        ValueError: The environment is of another body.
    """

    def __init__(self, env: gym.Env[Any, Any], share: float, *, limit: int = 250) -> None:
        super().__init__(env)
        name = type(env.unwrapped).__name__
        if name != "HumanoidStandupEnv":
            raise ValueError(f"episodes of {name} cannot begin risen: expected HumanoidStandupEnv")
        self._share, self._limit = share, limit
        self._left = -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the task's, or risen; which of them its own random numbers decide."""
        observation, info = self.env.reset(seed=seed, options=options)
        generator = self.env.unwrapped.np_random
        self._left = -1
        if generator.random() < self._share:
            self._left = self._limit
            observation = self._rise(generator)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; a risen episode is truncated at its limit."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._left -= 1
        return observation, float(reward), terminated, truncated or self._left == 0, info

    def _rise(self, generator: np.random.Generator) -> Any:
        body: Any = self.env.unwrapped
        angle = generator.uniform(0, np.pi / 2)
        position = body.init_qpos.copy()
        position[2] += FROM_TORSO_TO_FEET * np.sin(angle)
        position[3:7] = np.cos(angle / 2), 0, np.sin(angle / 2), 0
        position[7:] += generator.uniform(-JOINTS, JOINTS, len(position) - 7)
        position[7:] = np.clip(position[7:], *body.model.jnt_range[1:].T)
        body.set_state(position, generator.uniform(-SPEEDS, SPEEDS, body.model.nv))
        position[2] += THICKNESS - body.data.geom_xpos[1:, 2].min()  # the floor is the first
        body.set_state(position, body.data.qvel.copy())
        return body._get_obs()
