"""The average of a policy's weights over a while of its training.

* :class:`Average` -- of networks of one shape.

A policy that is still learning circles around what it learns; the mean of its weights lies nearer
to the middle than any of them (Polyak and Juditsky 1992; Izmailov et al., arXiv 1803.05407).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.experts.store import Network, network_from

__all__ = ["Average"]


class Average:
    """A mean of networks, each as a file would hold it."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._last: Network | None = None

    def add(self, network: Network) -> None:
        """Count one in."""
        for name, tensor in network.tensors().items():
            added = tensor.astype(np.float64)
            self._sums[name] = added + self._sums[name] if self._count else added
        self._count, self._last = self._count + 1, network

    def take(self) -> Network:
        """The mean of those that were added, which are forgotten.

        Raises:
            ValueError: None was.
        """
        if self._last is None:
            raise ValueError("no network was added: expected one or more")
        means: dict[str, NDArray[Any]] = {
            name: (self._sums[name] / self._count).astype(tensor.dtype)
            for name, tensor in self._last.tensors().items()
        }
        network = network_from(means, self._last.config())
        self._count, self._sums, self._last = 0, {}, None
        return network
