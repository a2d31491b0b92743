"""Shards made from a few recorded observations, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym import Plan
from policies.base import batch_of_one
from policies.training.data.shards import ARRAYS, TaskShard


def make_shard(
    plan: Plan, episodes: list[tuple[list[Any], NDArray[np.integer]]], task: str = "test"
) -> TaskShard:
    """A shard of episodes given as observations and action ids ``[T, A]``."""
    chunks: dict[str, list[Any]] = {name: [] for name in ARRAYS}
    texts: dict[bytes, int] = {}
    lengths = []
    for observations, action_ids in episodes:
        lengths.append(len(action_ids))
        for observation, ids in zip(observations, action_ids, strict=True):
            encoded = plan.encode_batch(batch_of_one(plan.observation_space, observation))
            for name in ("ids", "vectors", "grids", "images"):
                chunks[name].append(getattr(encoded, name))
            chunks["actions"].append(np.asarray(ids)[None])
            chunks["labels"].append(np.zeros((1, 0), np.float16))
            key = np.asarray(encoded.text[0], np.int32).tobytes()
            chunks["text_index"].append(np.array([texts.setdefault(key, len(texts))]))
    arrays = {name: np.concatenate(parts) for name, parts in chunks.items()}
    ids = [np.frombuffer(key, np.int32) for key in texts]
    arrays |= {
        "ends": np.cumsum(lengths),
        "text_ids": np.concatenate(ids),
        "text_ends": np.cumsum([len(text) for text in ids]),
    }
    return TaskShard(task, plan, arrays, group=task)
