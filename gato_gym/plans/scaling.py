"""The concatenated vector of the lean layout: numbers to vector patches, and back.

* :class:`VectorScaling` -- centre, spread and companding of each number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.options import PlanOptions
from gato_gym.plans.codecs import inverse_mu_law, mu_law
from gato_gym.plans.readers import NumbersReader
from gato_gym.plans.tokenized import no_parts

__all__ = ["VECTOR_LIMIT", "VectorScaling"]

VECTOR_LIMIT = 10.0
"""Numbers of a vector patch are clipped to this magnitude."""


class VectorScaling:
    """How the numbers of all parts become one vector, cut into patches.

    Args:
        readers: Readers of the parts, in order.
        options: The plan's options: ``vector_size``, ``vector_mean``, ``vector_std``.

    Attributes:
        length: N, numbers of the vector without padding.
        num_patches: V.
        resolution: float64 ``[N]``, the relative spacing of each number's dtype; float64's for
            integers.

    Raises:
        ValueError: The options' mean has another length.
    """

    def __init__(self, readers: Sequence[NumbersReader], options: PlanOptions) -> None:
        self.length = sum(reader.count for reader in readers)
        self.size = options.vector_size
        self.num_patches = -(-self.length // self.size)
        dtypes = [np.float64 if r.space.dtype is None else r.space.dtype for r in readers]
        spacings = [np.finfo(d if np.dtype(d).kind == "f" else np.float64).eps for d in dtypes]
        self.resolution = np.repeat(
            np.array(spacings, np.float64), [reader.count for reader in readers]
        )
        mean, std = options.vector_mean, options.vector_std
        if options.layout == "lean" and mean and len(mean) != self.length:
            raise ValueError(
                f"PlanOptions.vector_mean has {len(mean)} numbers: expected {self.length}, "
                f"one for each number of {[reader.path for reader in readers]}"
            )
        if mean or not readers:
            self._centre, self._spread = np.array(mean), np.array(std)
            self._companded = np.zeros(len(mean), np.bool_)
        else:
            scalings = [reader.scaling for reader in readers]
            self._centre, self._spread, self._companded = (
                np.concatenate(part) for part in zip(*scalings, strict=True)
            )
        self._any_companded = bool(self._companded.any())
        self._all_companded = bool(self.length and self._companded.all())
        self._as_it_is = not self._centre.any() and bool((self._spread == 1).all())
        self._single = self._centre.astype(np.float32), self._spread.astype(np.float32)

    def scale(self, parts: Sequence[NDArray[Any]], rows: int) -> NDArray[np.float32]:
        """Vector patches float32 ``[rows, V, size]`` of the parts' numbers ``[rows, n]``."""
        width = self.num_patches * self.size
        if not width:
            return no_parts(rows, 0, self.size, dtype=np.float32)
        numbers = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        vectors = np.empty((rows, width), np.float32)
        scaled = vectors[:, : self.length]
        if self._all_companded:
            scaled[...] = mu_law(numbers)
        else:
            self._scale(numbers, scaled)
        if self.length < width:
            vectors[:, self.length :] = 0.0
        return vectors.reshape(rows, self.num_patches, self.size)

    def _scale(self, numbers: NDArray[Any], scaled: NDArray[np.float32]) -> None:
        single = numbers.dtype in (np.float32, np.float16)
        if self._as_it_is and single and not self._any_companded:
            np.minimum(numbers, VECTOR_LIMIT, out=scaled)
            np.maximum(scaled, -VECTOR_LIMIT, out=scaled)
            return
        centre, spread = self._single if single else (self._centre, self._spread)
        with np.errstate(over="ignore"):
            np.subtract(numbers, centre, out=scaled, casting="unsafe")
            np.divide(scaled, spread, out=scaled, casting="unsafe")
        if self._any_companded:
            scaled[:, self._companded] = mu_law(numbers[:, self._companded])
        np.minimum(scaled, VECTOR_LIMIT, out=scaled)
        np.maximum(scaled, -VECTOR_LIMIT, out=scaled)

    def unscale(self, patches: NDArray[np.float32]) -> NDArray[np.float64]:
        """Numbers float64 ``[N]`` from vector patches ``[V, size]``."""
        scaled = patches.ravel()[: self.length].astype(np.float64)
        if not self.length:
            return scaled
        numbers = scaled * self._spread + self._centre
        return np.where(self._companded, inverse_mu_law(scaled), numbers)
