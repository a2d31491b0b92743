"""Numbers as tokens: each dimension of a transition in bins of its own.

A transition is the numbers of an observation, those of an action, the reward, and the discounted
return from it on (arXiv 2106.02039, section 3.1).

* :class:`Discretizer` -- the bins, each of which holds as many of training's values as the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Discretizer:
    """Bins of every dimension.

    Attributes:
        edges: float32 ``[dims, bins + 1]``, ascending.

    Example:
        >>> bins = Discretizer.of(np.array([[0.0], [1], [2], [3], [4]]), 2)
        >>> bins.encode(np.array([[-9.0], [1.5], [2.5]])).ravel().tolist()
        [0, 0, 1]
        >>> bins.decode(np.array([[0], [1]])).ravel().tolist()
        [1.0, 3.0]
    """

    edges: NDArray[np.float32]

    @property
    def bins(self) -> int:
        """Bins of a dimension."""
        return self.edges.shape[1] - 1

    @classmethod
    def of(cls, values: NDArray[np.floating], bins: int) -> Discretizer:
        """The bins of values ``[N, dims]``: their quantiles."""
        quantiles = np.linspace(0, 1, bins + 1)
        return cls(np.quantile(values, quantiles, axis=0).T.astype(np.float32))

    def with_choices(self, dimension: int, count: int) -> Discretizer:
        """The bins with those of a dimension that holds choices 0 to ``count - 1``, one in each.

        Raises:
            ValueError: There are more choices than bins.
        """
        if count > self.bins:
            raise ValueError(
                f"an action has {count} choices: expected at most {self.bins}, a bin each"
            )
        edges = self.edges.copy()
        edges[dimension] = np.minimum(np.arange(self.bins + 1), count) - 0.5
        return Discretizer(edges)

    def encode(self, values: NDArray[np.floating], first: int = 0) -> NDArray[np.int64]:
        """Bins of values ``[..., n]`` of the dimensions from ``first`` on; outside, the nearest."""
        tokens = np.empty(values.shape, np.int64)
        for place in range(values.shape[-1]):
            inner = self.edges[first + place, 1:-1]
            tokens[..., place] = np.searchsorted(inner, values[..., place], side="right")
        return tokens

    def decode(self, tokens: NDArray[np.integer], first: int = 0) -> NDArray[np.float64]:
        """The middle of each bin: tokens ``[..., n]`` to float64, the same shape."""
        centres = (self.edges[:, :-1].astype(np.float64) + self.edges[:, 1:]) / 2
        dimensions = np.arange(first, first + tokens.shape[-1])
        return centres[dimensions, tokens]
