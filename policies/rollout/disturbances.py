"""What a protocol does to the environments of an episode to see what a policy can bear.

* :class:`Disturbance` -- sticky actions, delayed actions and noise on what is observed.
* :class:`DelayedActions`, :class:`NoisyObservations` -- wrappers for any environment.
* :func:`number_boxes`, :func:`number_ranges` -- which numbers have noise, and their ranges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.seeds import TRAINING_SEEDS_START

if TYPE_CHECKING:
    from gato_gym.tasks import Task

LARGEST_BOUND = 1000.0
"""Magnitude up to which the bounds of a Box say what range its numbers have."""

RANGE_EPISODES, RANGE_STEPS = 10, 50
"""Episodes of random play, and steps of each, that show the range of numbers without such bounds.
"""


@dataclass(frozen=True)
class Disturbance:
    """What an episode's environment does beside what its task says.

    Attributes:
        sticky: Probability that a frame of an Atari game repeats the action before it.
        action_delay: Timesteps by which every action takes effect late.
        observation_noise: Standard deviation of the noise on each number that is observed, as a
            share of its range, :func:`number_ranges`.
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
                ranges = number_ranges(task).items()
                env = NoisyObservations(env, {p: self.observation_noise * r for p, r in ranges})
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
    """Adds normal noise to the numbers of Boxes, in dicts and tuples too.

    Whole numbers are rounded, and everything stays within its space. The noise is drawn anew at
    every timestep; it follows from the seed of the episode's reset, and draws nothing from the
    environment's own random numbers.

    Args:
        env: The environment.
        deviations: Standard deviations by the path of a Box, as :func:`number_boxes` has it, of a
            shape that the Box's can have added; what is not named stays as it is.
    """

    def __init__(
        self, env: gym.Env[Any, Any], deviations: Mapping[str, NDArray[np.float64]]
    ) -> None:
        super().__init__(env)
        self._deviations = deviations
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
        return self._noisy(self.observation_space, observation, "")

    def _noisy(self, space: gym.Space[Any], value: Any, path: str) -> Any:
        if isinstance(space, spaces.Dict):
            parts = space.items()
            return {name: self._noisy(part, value[name], _at(path, name)) for name, part in parts}
        if isinstance(space, spaces.Tuple):
            pairs = enumerate(zip(space, value, strict=True))
            return tuple(self._noisy(part, each, _at(path, k)) for k, (part, each) in pairs)
        if path not in self._deviations:
            return value
        assert isinstance(space, spaces.Box)
        noise = self._deviations[path] * self._random.standard_normal(space.shape)
        noisy = np.asarray(value) + noise
        whole = np.issubdtype(space.dtype, np.integer)
        clipped = np.clip(np.rint(noisy) if whole else noisy, space.low, space.high)
        return clipped.astype(space.dtype)


def number_boxes(
    space: gym.Space[Any], grids: tuple[str, ...] = (), path: str = ""
) -> dict[str, spaces.Box]:
    """The Boxes of an observation that hold numbers or pixels, by path.

    Args:
        space: The observation space.
        grids: Paths of Boxes whose whole numbers are symbols, which are left out.
        path: Of ``space``: Dict keys and Tuple indices joined by "/".

    Example:
        >>> from gymnasium.spaces import Box, Dict, Discrete
        >>> list(number_boxes(Dict({"view": Box(0, 9, (7, 7)), "turn": Discrete(4)}), ("view",)))
        []
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        parts = [number_boxes(part, grids, _at(path, name)) for name, part in named]
        return {name: box for part in parts for name, box in part.items()}
    return {path: space} if isinstance(space, spaces.Box) and path not in grids else {}


@cache
def number_ranges(task: Task) -> Mapping[str, NDArray[np.float64]]:
    """The range of each number of :func:`number_boxes` of a task: float64, of the Box's shape.

    It is that of the Box's bounds where these are at most :data:`LARGEST_BOUND` in magnitude.
    Others' is what the first :data:`RANGE_STEPS` steps of :data:`RANGE_EPISODES` episodes show,
    played by random actions from training seeds: zero for what never changes.
    """
    with closing(task.make()) as env:
        boxes = number_boxes(env.observation_space, task.options.grids)
        bounded = {
            path: (np.abs(box.low) <= LARGEST_BOUND) & (np.abs(box.high) <= LARGEST_BOUND)
            for path, box in boxes.items()
        }
        everywhere = all(each.all() for each in bounded.values())
        seen = [] if everywhere else _random_observations(env)
    ranges = {}
    for path, box in boxes.items():
        with np.errstate(over="ignore"):
            widths = box.high.astype(np.float64) - box.low.astype(np.float64)
        if not bounded[path].all():
            shown = np.stack([_part(each, path) for each in seen])
            widths = np.where(bounded[path], widths, np.ptp(shown.astype(np.float64), axis=0))
        ranges[path] = widths
    return ranges


def _random_observations(env: gym.Env[Any, Any]) -> list[Any]:
    observations = []
    for seed in range(TRAINING_SEEDS_START, TRAINING_SEEDS_START + RANGE_EPISODES):
        observation, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        observations.append(observation)
        for _ in range(RANGE_STEPS):
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            observations.append(observation)
            if terminated or truncated:
                break
    return observations


def _at(path: str, name: object) -> str:
    return f"{path}/{name}" if path else str(name)


def _part(observation: Any, path: str) -> Any:
    for name in path.split("/") if path else ():
        observation = observation[int(name) if isinstance(observation, tuple) else name]
    return np.asarray(observation)


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
