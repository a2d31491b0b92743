"""What is executed instead of the expert's choice.

* :class:`Noise` -- the base: one episode's noise.
* :class:`NavigationNoise` -- of BabyAI, :class:`HeldNoise` of Boxes, :class:`UniformNoise` of other
  choices, :class:`SampledNoise` of any space.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Noise(ABC):
    """The noise of one episode.

    Args:
        level: Its strength; 0 executes what the expert chose.
        generator: Draws the actions.
    """

    def __init__(self, level: float, generator: np.random.Generator) -> None:
        self.level, self._generator = level, generator

    def execute(self, label: Any) -> Any:
        """What to execute where the expert chose ``label``: a member of the action space."""
        return label if self.level == 0.0 else self._perturbed(label)

    @abstractmethod
    def _perturbed(self, label: Any) -> Any:
        """What to execute in an episode with noise."""


class NavigationNoise(Noise):
    """BabyAI: with probability p, a random action instead of the expert's.

    Mostly a turn or a step forward. One in twenty is any of the seven actions, which the bot can
    usually undo.

    Args:
        strength: p of the collection.
        generator: Draws whether this episode is noisy, and its actions.
    """

    def __init__(self, strength: float, generator: np.random.Generator) -> None:
        super().__init__(strength if generator.random() < 0.5 else 0.0, generator)

    def _perturbed(self, label: Any) -> Any:
        draw = self._generator
        if draw.random() >= self.level:
            return label
        any_of_all = draw.random() < 0.05
        return np.int64(draw.integers(7) if any_of_all else draw.choice(3, p=(0.3, 0.3, 0.4)))


class HeldNoise(Noise):
    """Boxes: an offset held for 1 to 11 steps, often zero, plus white noise.

    White noise alone averages out over some steps and leaves the expert's path where it is; an
    offset that is held pushes the arm away from it.

    Args:
        strength: p of the collection.
        box: The action space, bounded.
        generator: Draws the standard deviation of this episode, and the offsets.
    """

    def __init__(self, strength: float, box: spaces.Box, generator: np.random.Generator) -> None:
        super().__init__(strength * int(generator.integers(5)) / 4, generator)
        self._box = box
        self._half = (box.high - box.low) / 2
        self._left = 0
        self._offset = np.zeros(box.shape)

    def _perturbed(self, label: Any) -> Any:
        draw = self._generator
        if self._left == 0:
            self._left = int(draw.integers(1, 12))
            held = draw.normal(size=self._box.shape) * self.level
            self._offset = held if draw.random() < 0.6 else np.zeros(self._box.shape)
        self._left -= 1
        offset = self._offset + draw.normal(size=self._box.shape) * 0.3 * self.level
        executed = label + offset * self._half
        return np.clip(executed, self._box.low, self._box.high).astype(self._box.dtype)


class UniformNoise(Noise):
    """Other choices: with probability p in half of the episodes, any action.

    Args:
        strength: p of the collection.
        choices: The action space.
        generator: Draws whether this episode is noisy, and its actions.
    """

    def __init__(
        self, strength: float, choices: spaces.Discrete, generator: np.random.Generator
    ) -> None:
        super().__init__(strength if generator.random() < 0.5 else 0.0, generator)
        self._choices = choices

    def _perturbed(self, label: Any) -> Any:
        if self._generator.random() >= self.level:
            return label
        return self._choices.start + np.int64(self._generator.integers(self._choices.n))


class SampledNoise(Noise):
    """Any space: with probability p, a member of it instead of what was chosen.

    Args:
        strength: p.
        space: The action space; its own random numbers stay as they are.
        generator: Draws when, and seeds the members.
    """

    def __init__(
        self, strength: float, space: gym.Space[Any], generator: np.random.Generator
    ) -> None:
        super().__init__(strength, generator)
        self._space = copy.deepcopy(space)
        self._space.seed(int(generator.integers(2**31)))

    def _perturbed(self, label: Any) -> Any:
        return self._space.sample() if self._generator.random() < self.level else label
