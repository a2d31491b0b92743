"""Where a training's episodes begin, other than where the task's own do.

* :class:`RisenStarts` -- HumanoidStandup's episodes from anywhere between lying and standing.

A body that has to stand up first learns to sit, and so does not meet what comes after: kneeling,
squatting, standing. Where episodes begin there as well it meets that from the start (Florensa et
al., arXiv 1707.05300). Evaluations begin as the task itself does.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

HIP, KNEE = -1.9, -2.6
"""Radians by which legs are folded at most, in front of the body and under it."""

JOINTS, SPEEDS = 0.4, 0.3
"""Joints begin so far from there at most, in radians, and turn as fast at most, in rad/s."""

FALLEN = 0.3
"""Metres below the highest that the torso has been."""

ABOVE_FLOOR = 0.01
"""Metres from the floor to the lowest point of the body."""


class RisenStarts(gym.Wrapper[Any, Any, Any, Any]):
    """HumanoidStandup-v5, part of whose episodes begin with its body turned up, on its legs.

    The torso leans in any direction, by any angle from upright to lying; hips and knees are folded
    by any.

    Args:
        env: The task, before any change of its observations.
        share: Part of the episodes that begin so; the others as the task's own.
        limit: Timesteps after which these are truncated; sooner once the torso has fallen by
            :data:`FALLEN`, for sitting is learned in the others.

    Raises:
        ValueError: The environment is of another body.
    """

    def __init__(self, env: gym.Env[Any, Any], share: float, *, limit: int = 250) -> None:
        super().__init__(env)
        name = type(env.unwrapped).__name__
        if name != "HumanoidStandupEnv":
            raise ValueError(f"episodes of {name} cannot begin risen: expected HumanoidStandupEnv")
        self._share, self._limit = share, limit
        self._left, self._highest = -1, 0.0

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
        self._highest = float(observation[0])
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; a risen episode is truncated at its limit or when the body has fallen."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._highest = max(self._highest, float(observation[0]))
        if self._left > 0:
            self._left -= 1
            fallen = observation[0] < self._highest - FALLEN
            truncated = truncated or self._left == 0 or bool(fallen)
        return observation, float(reward), terminated, truncated, info

    def _rise(self, generator: np.random.Generator) -> Any:
        body: Any = self.env.unwrapped
        lean = np.pi / 2 * generator.random()
        direction = np.pi * (2 * generator.random() - 1)
        position = body.init_qpos.copy()
        position[2] = 2.0
        position[3:7] = leaning(lean, direction)
        position[7:] += generator.uniform(-JOINTS, JOINTS, len(position) - 7)
        for joint, most in (("hip_y", HIP), ("knee", KNEE)):
            legs = [body.model.joint(f"{side}_{joint}").qposadr[0] for side in ("left", "right")]
            position[legs] += most * generator.random()
        position[7:] = np.clip(position[7:], *body.model.jnt_range[1:].T)
        body.set_state(position, generator.uniform(-SPEEDS, SPEEDS, body.model.nv))
        position[2] += ABOVE_FLOOR - lowest(body.model, body.data)
        body.set_state(position, body.data.qvel.copy())
        return body._get_obs()


def leaning(lean: float, direction: float) -> NDArray[np.float64]:
    """The torso's quaternion, float64 ``[4]``: upright, then turned by ``lean`` radians.

    Args:
        lean: From upright to lying at pi / 2.
        direction: Radians of the horizontal axis of that turn.
    """
    w, turn = np.cos(lean / 2), np.sin(lean / 2)
    x, y = turn * np.cos(direction), turn * np.sin(direction)
    # (w, x, y, 0) after a quarter about y: the body of the task's file lies on its back, along x
    return np.sqrt(0.5) * np.array([w - y, x, w + y, x])


def lowest(model: Any, data: Any) -> float:
    """Height in metres of the lowest point of spheres and capsules, but the first, the floor."""
    radius, half = model.geom_size[1:, 0], model.geom_size[1:, 1]
    along = np.abs(data.geom_xmat[1:, 8])
    return float((data.geom_xpos[1:, 2] - radius - along * half).min())
