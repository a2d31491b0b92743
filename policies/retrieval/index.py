"""The nearest of many points.

* :class:`Index` -- exact by a matrix product; of many points, by faiss where it is installed.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]

MANY = 30_000
"""Points above which an index of cells is faster than one matrix product.

At 39 numbers and one row on one core, the product took 0.03 ms over 10,000 points, 0.09 ms over
30,000 and 0.5 to 0.7 ms over 100,000; the cells took 0.04, 0.07 and 0.10 ms.
"""

PROBES = 32
"""Cells that are searched: 97.4 to 100 % of answers were then the nearest, in draws of 3 to 20
hidden dimensions."""

CANDIDATES, NEAREST = 64, 8
"""Points, of all and of the cells, that are compared again without rounding."""


class Index:
    """Which of some points is the nearest.

    A row's answer does not depend on the other rows: what rounding cannot tell apart is compared
    again. Where points are at the same distance, the first is the answer.

    Args:
        points: float32 ``[N, F]``, at least one.

    Attributes:
        kind: "exact", or "cells" with faiss, which searches the cells nearby alone.

    Example:
        >>> index = Index(np.array([[0, 0], [3, 4]], np.float32))
        >>> [each.tolist() for each in index.nearest(np.array([[0, 1], [3, 3]], np.float32))]
        [[0, 1], [1.0, 1.0]]
    """

    def __init__(self, points: Points) -> None:
        self._cells = _cells_of(points) if len(points) > MANY and points.shape[1] else None
        self.kind = "exact" if self._cells is None else "cells"
        # a product with a matrix of long rows is faster
        self._points = points if self._cells is not None else np.ascontiguousarray(points.T).T
        self._squares = np.einsum("nf,nf->n", points, points)

    def nearest(self, queries: Points) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The nearest points of some queries.

        Args:
            queries: float32 ``[B, F]``.

        Returns:
            Places of the points, int ``[B]``, and their distances, float32 ``[B]``.
        """
        places = np.zeros(len(queries), np.intp)
        distances = np.zeros(len(queries), np.float32)
        for row, (near, apart) in enumerate(self.neighbours(queries, 1)):
            places[row], distances[row] = near[0], apart[0]
        return places, distances

    def neighbours(
        self, queries: Points, count: int
    ) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """The places of the ``count`` nearest points of each query, nearest first, and their
        distances; fewer where there are fewer. Of points as near, the first come first."""
        nearest = []
        for query, near in zip(queries, self._candidates(queries, count), strict=True):
            apart = ((self._points[near] - query) ** 2).sum(axis=1)
            best = np.argsort(apart, kind="stable")[:count]
            nearest.append((near[best], np.sqrt(apart[best])))
        return nearest

    def _candidates(self, queries: Points, count: int) -> list[NDArray[np.intp]]:
        """Places that may be among the nearest, ascending, for each query."""
        if self._cells is not None:
            _, near = self._cells.search(queries, NEAREST + count - 1)
            return [np.sort(row[row >= 0]) for row in near]
        scores = self._squares - 2 * (queries @ self._points.T)  # the squared distance less q²
        if count == 1:
            last = scores.argmin(axis=1)
        else:
            count = min(count, len(self._points))
            last = np.argpartition(scores, count - 1, axis=1)[:, count - 1]
        rounding = 1e-5 * (np.einsum("bf,bf->b", queries, queries) + self._squares[last])
        limits = scores[np.arange(len(last)), last] + rounding
        most = CANDIDATES if count == 1 else None
        return [
            np.flatnonzero(row <= limit)[:most] for row, limit in zip(scores, limits, strict=True)
        ]


def _cells_of(points: Points) -> Any:
    """faiss's index of some points; None without faiss, which is said."""
    try:
        import faiss
    except ImportError:
        warnings.warn(
            f"retrieval from {len(points):,} steps compares all of them at each step: "
            "pip install 'gato-gym[retrieval]' adds faiss, which is faster above "
            f"{MANY:,} steps",
            stacklevel=2,
        )
        return None
    index: Any = faiss.index_factory(points.shape[1], f"IVF{round(len(points) ** 0.5)},Flat")
    index.train(points)
    index.add(points)
    index.nprobe = PROBES
    return index
