"""Token shards: a task's episodes, encoded once and memory-mapped for training.

* :class:`TaskShard` -- one task's timesteps as arrays, with the plan that made them.
* :func:`write_shard` -- from episodes to a shard.
* :func:`build_shards` -- from registered tasks' Minari datasets to shards, in parallel.

    python -m policies.training.data.shards --suite babyai metaworld

A shard is a folder of ``.npy`` files and ``meta.json``; ``README`` of the format:

=================  ==========  ==========================================================
file               shape       holds
=================  ==========  ==========================================================
ends               [E]         one past the last timestep of each episode, int64
ids                [N, I]      id contributions of each timestep, int32
vectors            [N, V, K]   vector patches, float32
grids              [N, G, …]   symbolic grids, uint8
images             [N, M, …]   image patches, uint8 or float32
actions            [N, A]      the expert's action as ids, int32
text_index         [N]         which text each timestep shows, int32
text_ids           [L]         all texts, one after another, int32
text_ends          [X]         one past the last token of each text, int64
=================  ==========  ==========================================================

``meta.json`` has the task's id and its token options. Of a task that is not registered it also has
the spaces, as Minari writes them, and the group of the mixture that the task belongs to. Shards of
texts and of images with texts lie beside them, see :mod:`policies.training.data.text_shards`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from minari.serialization import deserialize_space
from numpy.typing import NDArray

from gato_gym import get_task, list_tasks
from gato_gym.atomic_io import appearing
from gato_gym.episodes.episode import Episode
from gato_gym.episodes.minari_datasets import read_minari
from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, compile_plan
from policies.gato.prompts import first_steps
from policies.model.sequence import TimestepArrays, cut_text, emits_text

ARRAYS = ("ids", "vectors", "grids", "images", "actions", "text_index")
FORMAT = 1


@dataclass(frozen=True)
class TaskShard:
    """One task's timesteps.

    Attributes:
        task: The task's id.
        plan: The plan that encoded them.
        arrays: Memory-mapped arrays by the names of the module's table.
        group: What the mixture knows the task by: the suite of a registered task.
    """

    task: str
    plan: Plan
    arrays: dict[str, NDArray[Any]]
    group: str

    @classmethod
    def open(cls, folder: Path) -> TaskShard:
        """Open a shard's folder.

        Raises:
            FileNotFoundError: It holds no shard.
        """
        if not (folder / "meta.json").exists():
            raise FileNotFoundError(
                f"{folder} holds no shard: make it with python -m policies.training.data.shards"
            )
        meta = json.loads((folder / "meta.json").read_text())
        options = PlanOptions.from_json(meta["options"])
        if "spaces" in meta:
            observation, action = (deserialize_space(text) for text in meta["spaces"])
            plan = compile_plan(observation, action, options)
        else:
            plan = _task_plan(meta["task"], options)
        names = (*ARRAYS, "ends", "text_ids", "text_ends")
        mapped = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        arrays = {name: np.asarray(array) for name, array in mapped.items()}  # quicker to index
        return cls(meta["task"], plan, arrays, meta_group(meta))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First timestep of each episode: int64 ``[E]``."""
        return np.r_[0, self.arrays["ends"][:-1]].astype(np.int64)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """One past the last timestep of each episode: int64 ``[E]``."""
        return np.asarray(self.arrays["ends"], np.int64)

    @property
    def num_steps(self) -> int:
        """N, timesteps of all episodes."""
        return len(self.arrays["actions"])

    @cached_property
    def emits(self) -> NDArray[np.bool_]:
        """bool ``[N]``: whether each timestep emits its text."""
        if not self.plan.has_text:
            return np.zeros(self.num_steps, np.bool_)
        index = np.asarray(self.arrays["text_index"])
        parts = [
            emits_text(self.plan.options, index[a:b])
            for a, b in zip(self.starts, self.ends, strict=True)
        ]
        return np.concatenate(parts)

    def part(self, first: int, stop: int) -> TaskShard:
        """The shard of the episodes ``[first, stop)`` alone; nothing is copied."""
        begin, end = int(self.starts[first]), int(self.ends[stop - 1])
        arrays = {n: a[begin:end] if n in ARRAYS else a for n, a in self.arrays.items()}
        arrays["ends"] = self.ends[first:stop] - begin
        return TaskShard(self.task, self.plan, arrays, self.group)

    def text(self, index: int) -> NDArray[np.int32]:
        """Token ids of text ``index``."""
        ends = self.arrays["text_ends"]
        begin = ends[index - 1] if index else 0
        return cut_text(np.asarray(self.arrays["text_ids"][begin : ends[index]]))

    def timesteps(self, steps: NDArray[np.int64]) -> TimestepArrays:
        """The parts of these timesteps."""
        a = self.arrays
        return TimestepArrays(
            ids=a["ids"][steps],
            vectors=a["vectors"][steps],
            grids=a["grids"][steps],
            images=a["images"][steps],
            actions=a["actions"][steps],
        )


def meta_group(meta: dict[str, Any]) -> str:
    """The mixture's group of the task that a shard's ``meta.json`` describes."""
    return str(meta["group"]) if "group" in meta else get_task(meta["task"]).suite


class _ShardWriter:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chunks: dict[str, list[NDArray[Any]]] = {name: [] for name in ARRAYS}
        self.lengths: list[int] = []
        self.texts: dict[bytes, int] = {}

    def add(self, episode: Episode) -> None:
        length = episode.length
        encoded = self.plan.encode_batch(first_steps(episode.observations, length))
        self.lengths.append(length)
        for name in ("ids", "vectors", "grids", "images"):
            self.chunks[name].append(getattr(encoded, name))
        self.chunks["actions"].append(self.plan.encode_actions(episode.actions))
        index = np.zeros(length, np.int32)
        if self.plan.has_text:
            keys = [np.asarray(t, np.int32).tobytes() for t in encoded.text]
            index[:] = [self.texts.setdefault(key, len(self.texts)) for key in keys]
        self.chunks["text_index"].append(index)

    def save(self, folder: Path, meta: dict[str, Any]) -> None:
        texts = [np.frombuffer(key, np.int32) for key in self.texts] or [np.zeros(0, np.int32)]
        with appearing(folder) as partial:
            for name in ARRAYS:
                array = np.concatenate(self.chunks[name])
                if array.dtype == np.int64:
                    array = array.astype(np.int32)
                np.save(partial / f"{name}.npy", array)
            np.save(partial / "ends.npy", np.cumsum(self.lengths).astype(np.int64))
            np.save(partial / "text_ids.npy", np.concatenate(texts))
            np.save(partial / "text_ends.npy", np.cumsum([len(t) for t in texts]).astype(np.int64))
            (partial / "meta.json").write_text(json.dumps(meta, indent=1))


def same_origin(folder: Path, meta: dict[str, Any]) -> dict[str, Any] | None:
    """``meta.json`` of the shard in ``folder`` if it was made from this, else None."""
    if not (folder / "meta.json").exists():
        return None
    found = json.loads((folder / "meta.json").read_text())
    if {key: found.get(key) for key in meta} != json.loads(json.dumps(meta)):
        return None
    return dict(found)


def kept_shard(folder: Path, meta: dict[str, Any]) -> tuple[int, int] | None:
    """Episodes and timesteps of the shard in ``folder`` if it was made from this, else None."""
    same = same_origin(folder, meta)
    return None if same is None else (same["episodes"], same["timesteps"])


def write_shard(
    folder: Path, plan: Plan, episodes: Iterable[Episode], meta: dict[str, Any]
) -> tuple[int, int]:
    """Encode episodes as a shard, which appears when it is complete.

    Args:
        folder: Where; a shard that is there is replaced.
        plan: Encodes them.
        episodes: At least one.
        meta: JSON values that ``meta.json`` holds beside the counts.

    Returns:
        How many episodes and timesteps it holds.
    """
    writer = _ShardWriter(plan)
    for episode in episodes:
        writer.add(episode)
    counts = len(writer.lengths), sum(writer.lengths)
    writer.save(folder, {**meta, "episodes": counts[0], "timesteps": counts[1]})
    return counts


def moments(plan: Plan, episodes: Iterable[Episode]) -> tuple[int, Any, Any]:
    """Count, sum and sum of squares of the raw vectors of some episodes."""
    count, total, squares = 0, np.zeros(plan.vector_length), np.zeros(plan.vector_length)
    for episode in episodes:
        x = plan.raw_vectors(first_steps(episode.observations, episode.length))
        count, total, squares = count + len(x), total + x.sum(0), squares + (x**2).sum(0)
    return count, total, squares


def with_statistics(options: PlanOptions, parts: Sequence[tuple[int, Any, Any]]) -> PlanOptions:
    """The options with the mean and standard deviation that :func:`moments` found."""
    count = sum(part[0] for part in parts)
    mean = sum(part[1] for part in parts) / count
    variance = sum(part[2] for part in parts) / count - mean**2
    std = np.where(variance > 1e-8, np.sqrt(np.maximum(variance, 1e-8)), 1.0)
    rounded = [tuple(float(f"{v:.6g}") for v in values) for values in (mean, std)]
    return dataclasses.replace(options, vector_mean=rounded[0], vector_std=rounded[1])


def _task_plan(task_id: str, options: PlanOptions) -> Plan:
    env = get_task(task_id).make()
    plan = compile_plan(env.observation_space, env.action_space, options)
    env.close()
    return plan


def _vector_moments(job: tuple[str, Path, int]) -> tuple[int, Any, Any]:
    """Count, sum and sum of squares of one task's raw vector."""
    task_id, root, episodes = job
    plan = _task_plan(task_id, get_task(task_id).options)
    if not plan.vector_length:
        return moments(plan, ())
    return moments(plan, read_task_episodes(task_id, root, limit=episodes))


def read_task_episodes(task_id: str, root: Path, *, limit: int | None = None) -> Iterator[Episode]:
    """A task's episodes from its Minari dataset under ``root``."""
    for index, episode in enumerate(read_minari(f"gato/{task_id}-v0", root=root)):
        if limit is not None and index >= limit:
            return
        yield episode


def normalised_options(
    tasks: list[str], root: Path, pool: Any, *, episodes: int = 20
) -> dict[str, PlanOptions]:
    """Options of each task with its suite's mean and standard deviation of every vector number."""
    moments_of_tasks = pool.map(_vector_moments, [(task, root, episodes) for task in tasks])
    options = {}
    by_suite: dict[tuple[str, int], list[tuple[int, Any, Any]]] = {}
    for task, moment in zip(tasks, moments_of_tasks, strict=True):
        by_suite.setdefault((get_task(task).suite, len(moment[1])), []).append(moment)
    for task, moment in zip(tasks, moments_of_tasks, strict=True):
        own, group = get_task(task).options, by_suite[get_task(task).suite, len(moment[1])]
        options[task] = with_statistics(own, group) if len(moment[1]) else own
    return options


def _build(job: tuple[str, PlanOptions, Path, Path, int, int]) -> tuple[str, int, int]:
    task_id, options, root, output, augment, seed = job
    folder = output / task_id
    meta = {
        "format": FORMAT,
        "task": task_id,
        "options": options.to_json(),
        "augment": augment,
        "seed": seed,
    }
    if (there := kept_shard(folder, meta)) is not None:
        return (task_id, *there)
    generator = np.random.default_rng([seed, *task_id.encode()])
    episodes = _augmented(read_task_episodes(task_id, root), task_id, augment, generator)
    return (task_id, *write_shard(folder, _task_plan(task_id, options), episodes, meta))


def _augmented(
    episodes: Iterable[Episode], task_id: str, copies: int, generator: np.random.Generator
) -> Iterator[Episode]:
    symmetry = get_task(task_id).augment
    for episode in episodes:
        yield episode
        if symmetry is not None:
            for _ in range(copies):
                yield symmetry(episode, generator)


def build_shards(
    tasks: list[str],
    *,
    root: Path,
    output: Path,
    augment: int = 0,
    workers: int = 2,
    seed: int = 0,
) -> None:
    """Encode the Minari datasets of ``tasks`` into shards, one folder a task.

    Args:
        tasks: Task ids.
        root: Folder of the datasets.
        output: Folder of the shards. A shard made with the same settings is kept.
        augment: Copies of each episode under the task's symmetries, beside the episode itself.
        workers: Processes.
        seed: Seed of the symmetries drawn.
    """
    output.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        options = normalised_options(tasks, root, pool)
        jobs = [(task, options[task], root, output, augment, seed) for task in tasks]
        total = 0
        for index, (task, episodes, steps) in enumerate(pool.imap_unordered(_build, jobs), 1):
            total += steps
            print(f"[{index}/{len(tasks)}] {task}: {episodes} episodes, {steps} timesteps")
        print(f"{total} timesteps in {output}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Encode Minari datasets into token shards.")
    parser.add_argument("--suite", nargs="+", default=["babyai", "metaworld"])
    parser.add_argument("--tasks", default=None, help="pattern, as in list_tasks")
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, default=Path("data/shards"))
    parser.add_argument("--augment", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tasks = [t.id for suite in args.suite for t in list_tasks(suite, args.tasks)]
    build_shards(
        tasks,
        root=args.root,
        output=args.output,
        augment=args.augment,
        workers=args.workers,
        seed=args.seed,
    )


if __name__ == "__main__":
    main()
