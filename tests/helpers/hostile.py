"""A dataset to tamper with, and what a folder holds, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from gato_gym import Episode, write_minari

DATASET = "my/cart-v0"


def episode(steps: int = 3, *, seed: int = 0) -> Episode:
    """An episode of CartPole's spaces."""
    generator = np.random.default_rng(seed)
    ends = np.arange(1, steps + 1) == steps
    return Episode(
        task="cart",
        observations=generator.uniform(-1, 1, (steps + 1, 4)).astype(np.float32),
        actions=generator.integers(0, 2, steps),
        rewards=np.ones(steps, np.float32),
        terminations=ends,
        truncations=np.zeros(steps, np.bool_),
        seed=seed,
    )


def write_dataset(root: Path, *, episodes: int = 2, dataset: str = DATASET) -> Path:
    """A dataset of CartPole below ``root``; returns its folder."""
    with gym.make("CartPole-v1") as env:
        write_minari(dataset, [episode(seed=i) for i in range(episodes)], env=env, root=root)
    return root / dataset


def change_metadata(dataset: Path, **values: Any) -> None:
    """Set entries of a dataset's metadata; None removes one."""
    path = dataset / "data" / "metadata.json"
    metadata = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder by its name from there on, and where every link points."""
    return {
        path.relative_to(folder).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.read_bytes()
        )
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
