"""What is executed instead of the expert's choice.

* :class:`NavigationNoise`, :class:`HeldNoise`, :class:`UniformNoise` -- of BabyAI, Boxes, other choices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces


class NavigationNoise:
    """BabyAI: with probability p, a random action instead of the expert's.

    Mostly a turn or a step forward. One in twenty is any of the seven actions, which the bot can
    usually undo.

    Args:
        strength: p of the collection.
        generator: Draws whether this episode is noisy, and its actions.
    """

    def __init__(self, strength: float, generator: np.random.Generator) -> None:
        self.level = strength if generator.random() < 0.5 else 0.0
        self._generator = generator

    def execute(self, label: Any) -> Any:
        """What to execute where the expert chose ``label``."""
        draw = self._generator
        if self.level == 0.0 or draw.random() >= self.level:
            return label
        any_of_all = draw.random() < 0.05
        return np.int64(draw.integers(7) if any_of_all else draw.choice(3, p=(0.3, 0.3, 0.4)))


class HeldNoise:
    """Boxes: an offset held for 1 to 11 steps, often zero, plus white noise.

    White noise alone averages out over some steps and leaves the expert's path where it is; an
    offset that is held pushes the arm away from it.

    Args:
        strength: p of the collection.
        box: The action space, bounded.
        generator: Draws the standard deviation of this episode, and the offsets.
    """

    def __init__(self, strength: float, box: spaces.Box, generator: np.random.Generator) -> None:
        self.level = strength * int(generator.integers(5)) / 4
        self._box, self._generator = box, generator
        self._half = (box.high - box.low) / 2
        self._left = 0
        self._offset = np.zeros(box.shape)

    def execute(self, label: Any) -> Any:
        """What to execute where the expert chose ``label``; within the Box."""
        if self.level == 0.0:
            return label
        draw = self._generator
        if self._left == 0:
            self._left = int(draw.integers(1, 12))
            held = draw.normal(size=self._box.shape) * self.level
            self._offset = held if draw.random() < 0.6 else np.zeros(self._box.shape)
        self._left -= 1
        offset = self._offset + draw.normal(size=self._box.shape) * 0.3 * self.level
        executed = label + offset * self._half
        return np.clip(executed, self._box.low, self._box.high).astype(self._box.dtype)


class UniformNoise:
    """Other choices: with probability p in half of the episodes, any action.

    Args:
        strength: p of the collection.
        choices: The action space.
        generator: Draws whether this episode is noisy, and its actions.
    """

    def __init__(
        self, strength: float, choices: spaces.Discrete, generator: np.random.Generator
    ) -> None:
        self.level = strength if generator.random() < 0.5 else 0.0
        self._choices, self._generator = choices, generator

    def execute(self, label: Any) -> Any:
        """What to execute where the expert chose ``label``."""
        if self.level == 0.0 or self._generator.random() >= self.level:
            return label
        return self._choices.start + np.int64(self._generator.integers(self._choices.n))
