"""What a policy would do in a state, beyond the one action it takes.

* :class:`Categorical` -- probabilities of the choices of a Discrete space.
* :class:`Gaussian` -- mean and standard deviation of a Box of actions.
* :class:`Decision` -- actions, state and distribution of one call of a policy.

Shapes: B rows, n choices, A numbers of an action. Without B where one observation was asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Categorical:
    """A distribution over the choices of a Discrete space.

    Attributes:
        probabilities: float32 ``[B, n]``, each row sums to 1; column 0 is the space's first choice.
    """

    probabilities: Array

    @classmethod
    def certain(cls, choices: NDArray[np.integer[Any]], count: int) -> Categorical:
        """All probability on one choice a row; ``choices`` is ``[B]``, counted from 0.

        Example:
            >>> Categorical.certain(np.array([2]), 3).probabilities.tolist()
            [[0.0, 0.0, 1.0]]
        """
        return cls(np.eye(count, dtype=np.float32)[choices])

    @classmethod
    def of_logits(cls, logits: Array) -> Categorical:
        """The softmax of logits ``[B, n]``."""
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return cls((weights / weights.sum(-1, keepdims=True)).astype(np.float32))

    def first(self) -> Categorical:
        """Row 0 alone."""
        return Categorical(self.probabilities[0])

    def recorded_row(self, row: int | None = None) -> NDArray[np.float16]:
        """What an episode keeps of a row beside its action: the probabilities, float16 ``[n]``.

        Args:
            row: Which; None where there are no rows.
        """
        kept = self.probabilities if row is None else self.probabilities[row]
        return kept.astype(np.float16)


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions of an action's numbers, within the space's bounds.

    Attributes:
        mean: float32 ``[B, A]``, in the units of the action space.
        deviation: float32 ``[B, A]``, likewise; 0 where the policy draws nothing.
    """

    mean: Array
    deviation: Array

    def first(self) -> Gaussian:
        """Row 0 alone."""
        return Gaussian(self.mean[0], self.deviation[0])

    def recorded_row(self, row: int | None = None) -> NDArray[np.float16]:
        """What an episode keeps of a row beside its action, the mean: deviations, float16 ``[A]``.

        Args:
            row: Which; None where there are no rows.
        """
        kept = self.deviation if row is None else self.deviation[row]
        return kept.astype(np.float16)


ActionDistribution = Categorical | Gaussian


class Decision(NamedTuple):
    """What one call of a policy gives.

    Attributes:
        actions: As :meth:`policies.base.Policy.predict` returns them.
        state: The state that it returns with them.
        distribution: What the actions were chosen from; None where the policy does not say.
    """

    actions: Any
    state: Any
    distribution: ActionDistribution | None = None
