"""Encoded observations, and a description of their parts.

* :class:`TokenizedStep`, :class:`TokenizedBatch` -- one and B encoded observations.
* :func:`no_parts` -- the empty array of a kind of parts that an observation lacks.
* :class:`Field`, :func:`field_table` -- the parts of a timestep, for people.

Shapes: B rows, I ids, V vector patches of ``vector_size`` numbers, M image patches of P x P pixels
and C channels, G grids of H x W cells and ``planes`` symbols a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Field", "TokenizedBatch", "TokenizedStep", "field_table", "no_parts"]


@dataclass(frozen=True)
class TokenizedStep:
    """One encoded observation.

    Attributes:
        text: int32 ``[L]``, the whole text's ids; empty without text.
        ids: int32 ``[I]``.
        vectors: float32 ``[V, vector_size]``, in [-10, 10].
        images: uint8 ``[M, P, P, C]``.
        grids: uint8 ``[G, H, W, planes]``.
    """

    text: NDArray[np.int32]
    ids: NDArray[np.int32]
    vectors: NDArray[np.float32]
    images: NDArray[np.uint8]
    grids: NDArray[np.uint8]


@dataclass(frozen=True)
class TokenizedBatch:
    """B encoded observations.

    Attributes:
        text: B arrays int32 ``[L_b]``, each row's whole text; the caller decides by the plan's
            options whether to emit it.
        ids: int32 ``[B, I]``.
        vectors: float32 ``[B, V, vector_size]``, in [-10, 10].
        images: uint8 ``[B, M, P, P, C]``.
        grids: uint8 ``[B, G, H, W, planes]``.
    """

    text: tuple[NDArray[np.int32], ...]
    ids: NDArray[np.int32]
    vectors: NDArray[np.float32]
    images: NDArray[np.uint8]
    grids: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def join(cls, batches: Sequence[TokenizedBatch]) -> TokenizedBatch:
        """The rows of several batches with the same layout, one batch after another."""
        return cls(
            tuple(text for batch in batches for text in batch.text),
            np.concatenate([batch.ids for batch in batches]),
            np.concatenate([batch.vectors for batch in batches]),
            np.concatenate([batch.images for batch in batches]),
            np.concatenate([batch.grids for batch in batches]),
        )

    def row(self, index: int) -> TokenizedStep:
        """One row of the batch; its arrays are views."""
        return TokenizedStep(
            self.text[index],
            self.ids[index],
            self.vectors[index],
            self.images[index],
            self.grids[index],
        )


@lru_cache(maxsize=256)
def no_parts(*shape: int, dtype: DTypeLike) -> NDArray[Any]:
    """A shared array without elements."""
    assert 0 in shape
    return np.zeros(shape, dtype)


@dataclass(frozen=True)
class Field:
    """One part of a timestep.

    Attributes:
        path: The part of the observation or action; "" for the separator and for bare spaces.
        kind: "text", "image", "vector", "value", "discrete", "sequence", "oneof", "graph",
            "grid", "separator" or "action".
        tokens: Number of its own tokens; 0 if that varies (text) or it shares the body's last token
            with other parts.
        count: Number of its ids, patches or grids in an encoded timestep; 0 for text.
        ids: The ids that it can contain; empty without ids.
    """

    path: str
    kind: str
    tokens: int
    count: int
    ids: range = range(0)

    @property
    def tokens_in_words(self) -> str:
        """Its tokens, or why they are not a number."""
        return str(self.tokens or ("varies" if self.kind == "text" else "shared"))

    @property
    def ids_in_words(self) -> str:
        """Its ids as a half-open range."""
        return f"[{self.ids.start}, {self.ids.stop})" if self.ids else "-"


def field_table(fields: Sequence[Field]) -> str:
    """Fields as a table of plain text, one a line."""
    rows = [("path", "kind", "tokens", "ids")]
    for field in fields:
        rows.append((field.path or "-", field.kind, field.tokens_in_words, field.ids_in_words))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
