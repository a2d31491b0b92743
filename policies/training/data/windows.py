"""Windows of one task's episodes.

* :class:`WindowSampler` -- batch number ``k`` of a seed, always the same one.

A window begins at any timestep, all of which are as likely, and ends with its episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from policies.training.data.packing import DocumentSampler, Mixture
from policies.training.data.shards import TaskShard

BatchT = TypeVar("BatchT")
Collate = Callable[[TaskShard, Sequence[range]], BatchT]
"""Makes a batch of windows, which are timesteps of a shard."""


class WindowSampler(DocumentSampler[TaskShard, BatchT]):
    """Batches of windows, one a row.

    Args:
        shards: Of one task.
        mixture, rows, length, seed: As :class:`DocumentSampler` has them.
        context: Timesteps of a window, at most.
        tokens: Tokens of a timestep.
        collate: Makes the batch.
    """

    def __init__(
        self,
        shards: Mapping[str, TaskShard],
        mixture: Mixture,
        *,
        rows: int,
        length: int,
        seed: int,
        context: int,
        tokens: int,
        collate: Collate[BatchT],
    ) -> None:
        self.context, self.tokens, self.collate = context, tokens, collate
        (self.shard,) = shards.values()
        super().__init__(shards, mixture, rows=rows, length=length, seed=seed)

    def num_tokens(self, task: str) -> int:
        """As :meth:`DocumentSampler.num_tokens`."""
        return self.tokens * self.shard.num_steps

    def count_documents(self, batch: Any) -> tuple[int, int]:
        """As :meth:`DocumentSampler.count_documents`: none is prompted."""
        return len(batch.mask), 0

    def batch(self, index: int, *, rank: int = 0, world: int = 1) -> BatchT:
        """As :meth:`DocumentSampler.batch`."""
        windows = []
        for row in range(rank, self.rows, world):
            generator = np.random.default_rng([self.seed, index, row])
            begin = int(generator.integers(self.shard.num_steps))
            episode = int(np.searchsorted(self.shard.ends, begin, side="right"))
            stop = min(int(self.shard.ends[episode]), begin + self.context)
            windows.append(range(begin, stop))
        return self.collate(self.shard, windows)

    def _usual_size(self, task: str) -> float:
        return float(self.tokens * self.context)
