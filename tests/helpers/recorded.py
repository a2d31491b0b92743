"""Shards made from a few recorded observations, and invented datasets, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym import Episode, Plan, get_task, write_minari
from policies.base import batch_of_one
from policies.training.data.shards import ARRAYS, TaskShard

BABYAI, OPEN = "babyai-go-to-obj", "babyai-open"
ARM, PUSH = "metaworld-reach", "metaworld-push"


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


def babyai_episode(number: int) -> Episode:
    """Five steps of invented observations."""
    generator = np.random.default_rng(number)
    image = generator.integers(0, 4, (6, 7, 7, 3)).astype(np.uint8)
    image[..., 0] = generator.choice([1, 2, 5, 6], (6, 7, 7))
    words = ["go to the red ball"] * 6
    return Episode(
        task=BABYAI,
        observations={"direction": np.arange(6) % 4, "image": image, "mission": words},
        actions=generator.integers(0, 7, 5),
        rewards=np.array([0, 0, 0, 0, 0.9], np.float32),
        terminations=np.array([False] * 4 + [True]),
        truncations=np.zeros(5, bool),
        seed=number,
        info={"success": True},
    )


def arm_episode(number: int) -> Episode:
    """Twelve steps of invented observations with means and spreads of their own."""
    generator = np.random.default_rng(number)
    return Episode(
        task=ARM,
        observations=generator.normal(np.arange(39), 1 + np.arange(39) % 3, (13, 39)),
        actions=generator.uniform(-1, 1, (12, 4)).astype(np.float32),
        rewards=np.ones(12, np.float32),
        terminations=np.zeros(12, bool),
        truncations=np.array([False] * 11 + [True]),
        seed=number,
        info={"success": True, "noise": 0.5 if number == 0 else 0.0},
    )


def write_invented(root: Path) -> None:
    """Four episodes of each of four tasks as Minari datasets, ``gato/<task>-v0``."""
    rooms, arms = (
        ((BABYAI, babyai_episode), (OPEN, babyai_episode)),
        ((ARM, arm_episode), (PUSH, arm_episode)),
    )
    for task, make in (*rooms, *arms):
        env = get_task(task).make()
        write_minari(f"gato/{task}-v0", [make(n) for n in range(4)], env=env, root=root)
        env.close()


def demonstration(length: int) -> Episode:
    """An episode of the small tests' state and of two numbers as an action, at random."""
    generator = np.random.default_rng(0)
    return Episode(
        task="act",
        observations=generator.uniform(-1, 1, (length + 1, 3)).astype(np.float32),
        actions=generator.uniform(-1, 1, (length, 2)).astype(np.float32),
        rewards=np.zeros(length, np.float32),
        terminations=np.zeros(length, bool),
        truncations=np.zeros(length, bool),
    )
