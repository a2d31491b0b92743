"""What a protocol does to the environments of an episode to see what a policy can bear.

* :class:`Disturbance` -- sticky actions, delayed actions and noise on what is observed.
* :class:`DelayedActions`, :class:`NoisyObservations` -- wrappers for any environment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

if TYPE_CHECKING:
    from gato_gym.tasks import Task


@dataclass(frozen=True)
class Disturbance:
    """What an episode's environment does beside what its task says.

    Attributes:
        sticky: Probability that a frame of an Atari game repeats the action before it.
        action_delay: Timesteps by which every action takes effect late.
        observation_noise: Standard deviation of the noise on each number that is observed, as a
            share of that number.
    """

    sticky: float = 0.0
    action_delay: int = 0
    observation_noise: float = 0.0

    def values(self) -> dict[str, float]:
        """Those that are not zero, by name."""
        return {name: value for name, value in asdict(self).items() if value}

    def making(self, task: Task) -> Callable[..., gym.Env[Any, Any]]:
        """What makes the task's environments; it takes the arguments of :meth:`Task.make`."""

        def make(**options: Any) -> gym.Env[Any, Any]:
            if self.sticky:
                options["sticky"] = self.sticky
            env = task.make(**options)
            if self.observation_noise:
                env = NoisyObservations(env, self.observation_noise)
            return DelayedActions(env, self.action_delay) if self.action_delay else env

        return make


UNDISTURBED = Disturbance()


class DelayedActions(gym.Wrapper[Any, Any, Any, Any]):
    """Executes each action some timesteps late; an episode begins with idle ones.

    An idle action is the first of a Discrete space, whose first is to do nothing in Atari, and
    zero of a Box, or the number nearest to zero that is in it.

    Args:
        env: The environment.
        delay: Timesteps, at least 1.
    """

    def __init__(self, env: gym.Env[Any, Any], delay: int) -> None:
        super().__init__(env)
        self._delay = delay
        self._waiting: deque[Any] = deque()

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._waiting = deque([_idle(self.action_space)] * self._delay)
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Execute the action of ``delay`` timesteps before."""
        self._waiting.append(np.copy(action) if isinstance(action, np.ndarray) else action)
        return self.env.step(self._waiting.popleft())


class NoisyObservations(gym.ObservationWrapper[Any, Any, Any]):
    """Multiplies every number of a Box by 1 + noise, in dicts and tuples too.

    Whole numbers are rounded, and everything stays within its space. The noise follows from the
    seed of the episode's reset, and draws nothing from the environment's own random numbers.

    Args:
        env: The environment.
        scale: Standard deviation of the normal noise.
    """

    def __init__(self, env: gym.Env[Any, Any], scale: float) -> None:
        super().__init__(env)
        self._scale = scale
        self._random = np.random.default_rng()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        if seed is not None:
            self._random = np.random.default_rng([seed, 1])
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> Any:
        """With noise."""
        return self._noisy(self.observation_space, observation)

    def _noisy(self, space: gym.Space[Any], value: Any) -> Any:
        if isinstance(space, spaces.Dict):
            return {name: self._noisy(part, value[name]) for name, part in space.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(map(self._noisy, space, value))
        if not isinstance(space, spaces.Box):
            return value
        noisy = np.asarray(value) * (1 + self._scale * self._random.standard_normal(space.shape))
        whole = np.issubdtype(space.dtype, np.integer)
        clipped = np.clip(np.rint(noisy) if whole else noisy, space.low, space.high)
        return clipped.astype(space.dtype)


def _idle(space: gym.Space[Any]) -> Any:
    if isinstance(space, spaces.Discrete):
        return space.start
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape, space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return np.array(space.start, space.dtype)
    raise ValueError(
        f"actions of {space} cannot be delayed: expected Discrete, Box, MultiBinary or "
        "MultiDiscrete; choose another protocol"
    )
