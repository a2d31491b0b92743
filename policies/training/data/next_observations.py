"""The observations that follow a document's timesteps, as targets beside its actions.

* :class:`NextCollector` -- gathers them from shards while documents are placed.

The last token of a timestep, the one that predicts its last action token, says what the next
observation of its episode is, wherever that timestep is in the batch, if it is there at all. An
episode's last timestep says nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from policies.model.embedding import BODY_PLACES, TEXT_PLACES
from policies.model.observation_heads import NextParts
from policies.model.sequence import pad_stack, scale_patches
from policies.training.data.shards import TaskShard

Ints = NDArray[np.int64]


class NextCollector:
    """Gathers the parts of next observations by their kind."""

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[NDArray[np.generic], ...]]] = {}

    def add(self, shard: TaskShard, steps: Ints, slots: Ints) -> None:
        """Ask for what follows some timesteps.

        Args:
            shard: Of their task.
            steps: int64 ``[n]``, timesteps of the shard.
            slots: int64 ``[n]``, the flattened token that predicts what follows each.
        """
        plan = shard.plan
        goes_on = ~np.isin(steps + 1, shard.ends)
        steps, slots = steps[goes_on], slots[goes_on]
        if not len(steps):
            return
        arrays = shard.timesteps(steps + 1)
        kinds = (
            ("ids", arrays.ids, plan.id_places),
            ("vectors", arrays.vectors, plan.vector_places),
            ("grids", arrays.grids, plan.grid_places),
            ("images", arrays.images, plan.image_places),
        )
        parts = sum(len(places) for _, _, places in kinds)
        for kind, values, places in kinds:
            if not len(places):
                continue
            weights = np.full((len(steps), len(places)), 1.0 / parts, np.float32)
            if kind == "vectors":  # a mean over the numbers that are no padding
                size = values.shape[2]
                first = np.arange(len(places)) * size
                weights *= size / np.clip(plan.vector_length - first, 1, size)
            found = (
                np.repeat(slots, len(places)),
                np.tile(np.minimum(places, BODY_PLACES - 1) + TEXT_PLACES, len(steps)),
                values.reshape(-1, *values.shape[2:]),
                weights.reshape(-1).astype(np.float32),
            )
            self._parts.setdefault(kind, []).append(found)

    def finish(self) -> dict[str, NextParts]:
        """The parts as tensors, by kind."""
        made = {}
        for kind, chunks in self._parts.items():
            found = [chunk[2] for chunk in chunks]
            if kind == "images":
                found = [scale_patches(values) for values in found]
            values = pad_stack(found)
            values = values.astype(np.int64 if kind in ("ids", "grids") else np.float32)
            slots, places, weights = (np.concatenate([c[i] for c in chunks]) for i in (0, 1, 3))
            made[kind] = NextParts(
                torch.from_numpy(slots.astype(np.int64)),
                torch.from_numpy(places.astype(np.int64)),
                torch.from_numpy(values),
                torch.from_numpy(weights),
            )
        return made
