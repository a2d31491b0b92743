"""One recorded episode.

* :class:`Episode` -- observations, actions and rewards of T steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T steps.

    Attributes:
        task: Id of the task, or of the environment.
        observations: Arrays ``[T + 1, ...]``, nested in dict and tuple as the space is; text is a
            list of T + 1 strings, and a part of no fixed size (Sequence, OneOf, Graph) a list of
            T + 1 members. The last observation follows the last action.
        actions: ``[T, ...]``, nested as the space is: the expert's actions, which are the labels
            even if noise perturbed the executed ones.
        rewards: float32 ``[T]``.
        terminations: bool ``[T]``.
        truncations: bool ``[T]``.
        seed: The seed that the environment was reset with.
        info: JSON values, such as ``noise`` and ``success``.
        executed: ``[T, ...]``, the executed actions; None if they are ``actions``.
        distribution: float16 ``[T, K]``, what the expert chose from: K probabilities of a Discrete
            space's choices, or standard deviations of a Box's K numbers, whose means are
            ``actions``; None where the expert did not say.
    """

    task: str
    observations: Any
    actions: Any
    rewards: NDArray[np.float32]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    seed: int | None = None
    info: dict[str, Any] = field(default_factory=dict)
    executed: Any = None
    distribution: NDArray[np.float16] | None = None

    @property
    def length(self) -> int:
        """T, the number of steps."""
        return len(self.rewards)

    @property
    def total_return(self) -> float:
        """Sum of the rewards, undiscounted."""
        return float(np.sum(self.rewards, dtype=np.float64))
