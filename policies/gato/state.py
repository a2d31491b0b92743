"""What a batch of running episodes remembers between two calls of ``predict``.

* :class:`GatoState` -- the cache of keys and values, positions, texts and random numbers.
* :func:`check_state` -- refuses one of another batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.base import check_rows
from policies.model.kv_cache import RingCache


@dataclass
class GatoState:
    """What a batch of running episodes remembers. ``predict`` writes into it.

    Attributes:
        cache: Keys and values.
        next_positions: int64 ``[B]``, position of the next token of each row.
        pending: int64 ``[B]``, last action token if it enters with the next observation, else -1.
        conditions: float ``[B, condition_size]``, the encoded text that each row acts under; 0 for
            an empty one.
        texts: object ``[B]``, the text each row saw last, as bytes of its ids; None before.
        ages: int64 ``[B]``, timesteps since it was emitted.
        generators: object ``[B]``, each row's :class:`policies.chance.RowGenerator`.
        owners: int64 ``[B]``, :attr:`policies.gato.decoding.Decoder.owner` of who made the row.
        returns: float64 ``[B]``, scaled returns that are still to collect.
    """

    cache: RingCache
    next_positions: NDArray[np.int64]
    pending: NDArray[np.int64]
    conditions: Tensor
    texts: NDArray[np.object_]
    ages: NDArray[np.int64]
    generators: NDArray[np.object_]
    owners: NDArray[np.int64]
    returns: NDArray[np.float64]

    @property
    def rows(self) -> int:
        """B."""
        return len(self.pending)

    def part(self, rows: slice) -> GatoState:
        """A view of some rows: writing into it writes here."""
        return self._select(rows, rows)

    def take(self, rows: NDArray[np.int64]) -> GatoState:
        """A copy of some rows, in this order."""
        return self._select(rows, torch.from_numpy(rows).to(self.conditions.device))

    def _select(self, rows: Any, index: Any) -> GatoState:
        return GatoState(
            self.cache.part(index),
            self.next_positions[rows],
            self.pending[rows],
            self.conditions[index],
            self.texts[rows],
            self.ages[rows],
            self.generators[rows],
            self.owners[rows],
            self.returns[rows],
        )

    @classmethod
    def join(cls, states: Sequence[GatoState], cache: RingCache | None = None) -> GatoState:
        """The rows of several states, one state after another.

        Args:
            states: One or more.
            cache: The cache of all these rows; None joins the caches of the states.

        Raises:
            ValueError: The caches have different sizes.
        """
        return cls(
            RingCache.join([state.cache for state in states]) if cache is None else cache,
            np.concatenate([state.next_positions for state in states]),
            np.concatenate([state.pending for state in states]),
            torch.cat([state.conditions for state in states]),
            np.concatenate([state.texts for state in states]),
            np.concatenate([state.ages for state in states]),
            np.concatenate([state.generators for state in states]),
            np.concatenate([state.owners for state in states]),
            np.concatenate([state.returns for state in states]),
        )


def check_state(state: object, rows: int, owner: int) -> None:
    """Refuse a state that does not belong to a batch of ``rows`` rows of a task.

    Raises:
        ValueError: It has another number of rows, is another task's, or is no state.
    """
    check_rows(state, GatoState, rows)
    assert isinstance(state, GatoState)
    if (state.owners != owner).any():
        raise ValueError(
            "state is of another task, or of other token options: pass the state that predict "
            "returned for the same environments"
        )
