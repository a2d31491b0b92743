"""From the episodes of datasets to shards: the one way there is.

* :func:`shard_tasks` -- encodes tasks, with statistics of their vectors.
* :func:`shard_task` -- encodes some episodes of one.
* :func:`augmented`, :func:`made_of` -- parts that shards of other families are made with, too.

A shard that is there, made of the same episodes in the same way, is kept. The ``made_of`` of older
versions' has no ``contents``: their episodes are known by the returns.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gato_gym.episodes.episode import Episode
from gato_gym.files.atomic_io import file_name
from gato_gym.files.folder_lock import make_folder
from gato_gym.options import PlanOptions
from gato_gym.space_json import write_space
from policies.gato.task_specs import signature
from policies.processes import JobPool, caller, results_of
from policies.training.data.datasets import DatasetTask, Place, registered_task
from policies.training.data.shards import (
    FORMAT,
    TaskShard,
    is_made_of,
    write_shard,
)
from policies.training.data.vector_statistics import VectorMoments, moments, with_statistics

STATISTICS_EPISODES, SUITE_STATISTICS_EPISODES = 200, 20
"""Episodes of each dataset whose vectors are measured: for its task alone, or for a suite."""


def shard_tasks(
    tasks: Sequence[DatasetTask],
    folder: Path,
    *,
    augment: int = 0,
    seed: int = 0,
    workers: int = 1,
    rewards: bool = False,
) -> dict[str, TaskShard]:
    """Encode tasks into shards; those that are there, made of the same datasets, are kept.

    Args:
        tasks: The tasks. Vectors of a group have the statistics of all its tasks that are given.
        folder: The shards' folder.
        augment: Copies of each episode under the symmetries of its task, beside the episode.
        seed: Seed of the symmetries drawn.
        workers: Processes.
        rewards: Whether shards have rewards, from which returns to go follow.

    Returns:
        The shards by task id.

    Raises:
        OSError: There is no place for the folder.
        ValueError: An observation or action is not what its space says.
        WorkerError: A process failed, or was killed.
    """
    make_folder(folder)
    places = {task.id: folder / file_name(task.id) for task in tasks}
    rewarded = {"rewards": True} if rewards else {}
    metas, older = (
        {
            name: {**meta, **rewarded}
            for name, meta in _metas_of(tasks, augment, seed, contents=contents).items()
        }
        for contents in (True, False)
    )
    missing = [
        task
        for task in tasks
        if not is_made_of(places[task.id], metas[task.id])
        and not is_made_of(places[task.id], older[task.id])
    ]
    groups = {task.group for task in missing}
    members = [task for task in tasks if task.group in groups]
    with JobPool(caller, count=0 if workers == 1 else workers) as pool:
        parts = results_of(pool, [partial(_vector_moments, task) for task in members])
        measured = list(zip(members, parts, strict=True))
        jobs = [
            _Job(places[task.id], task, _normalised(task, measured), metas[task.id], augment, seed)
            for task in missing
        ]
        results_of(pool, [partial(_encode, job) for job in jobs])
    return {name: TaskShard.open(place) for name, place in places.items()}


def shard_task(
    task: DatasetTask,
    folder: Path,
    places: Sequence[Place],
    options: PlanOptions | None = None,
    *,
    rewards: bool = False,
) -> TaskShard:
    """Encode the episodes at some places; a shard that is there, made of the same, is kept.

    Args:
        task: The task.
        folder: The shard's folder.
        places: Where the task's episodes are.
        options: How they become tokens; None takes the task's, with the statistics of the vectors
            of these episodes alone.
        rewards: Whether the shard has rewards.
    """
    part = {"places": [list(place) for place in places]}
    rewarded = {"rewards": True} if rewards else {}
    meta, older = (
        {**_meta(task, {**task.identity(contents=contents), **part}), **rewarded}
        for contents in (True, False)
    )
    if options is not None:
        meta["options"] = older["options"] = options.to_json()
    if not is_made_of(folder, meta) and not is_made_of(folder, older):
        plan, chosen = task.plan(), options or task.options
        if options is None and plan.vector_length and not chosen.vector_mean:
            chosen = with_statistics(plan, [moments(plan, task.episodes(places))])
        _encode(_Job(folder, task, chosen, meta, places=tuple(places)))
    return TaskShard.open(folder)


@dataclass(frozen=True)
class _Job:
    folder: Path
    task: DatasetTask
    options: PlanOptions
    meta: dict[str, Any]
    augment: int = 0
    seed: int = 0
    places: tuple[Place, ...] | None = None


def _encode(job: _Job) -> None:
    task = job.task
    written = [write_space(space) for space in (task.observation_space, task.action_space)]
    meta = {**job.meta, "spaces": written, "options": job.options.to_json()}
    episodes = augmented(task, task.episodes(job.places), job.augment, job.seed)
    rewards = bool(meta.get("rewards"))
    write_shard(job.folder, task.plan(job.options), episodes, meta, rewards=rewards)


def augmented(
    task: DatasetTask, episodes: Iterator[Episode], copies: int, seed: int
) -> Iterator[Episode]:
    """The episodes, each followed by ``copies`` of it under the symmetries of its task."""
    if not copies:
        yield from episodes
        return
    registered = registered_task(task.id)
    symmetry = None if registered is None else registered.augment
    generator = np.random.default_rng([seed, *task.id.encode()])
    for episode in episodes:
        yield episode
        if symmetry is not None:
            for _ in range(copies):
                yield symmetry(episode, generator)


def _meta(task: DatasetTask, made: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "task": task.id, "group": task.group, "made_of": made}


def _metas_of(
    tasks: Sequence[DatasetTask], augment: int, seed: int, *, contents: bool
) -> dict[str, dict[str, Any]]:
    """By task, what ``meta.json`` says of its shard: of a group's tasks, with the whole group."""
    groups: dict[str, dict[str, Any]] = {}
    for task in tasks:
        identity = task.identity(contents=contents)
        groups.setdefault(task.group, {})[task.id] = identity
    metas = {}
    for task in tasks:
        made = made_of(task, augment, seed, contents=contents)
        if task.group != task.id:
            group = json.dumps(groups[task.group], sort_keys=True).encode()
            made["group"] = hashlib.blake2b(group, digest_size=8).hexdigest()
        metas[task.id] = _meta(task, made)
    return metas


def made_of(task: DatasetTask, augment: int, seed: int, *, contents: bool = True) -> dict[str, Any]:
    """What a task's shard is known by, as JSON values."""
    made = task.identity(contents=contents)
    return {**made, "augment": augment, "seed": seed} if augment else made


def _vector_moments(task: DatasetTask) -> list[VectorMoments]:
    """Moments of the vectors of each of its datasets; none where nothing is to be measured."""
    plan = task.plan()
    if not plan.vector_length or task.options.vector_mean:
        return []
    most = STATISTICS_EPISODES if task.group == task.id else SUITE_STATISTICS_EPISODES
    return [moments(plan, itertools.islice(source.episodes(), most)) for source in task.sources]


def _normalised(
    task: DatasetTask, measured: Sequence[tuple[DatasetTask, list[VectorMoments]]]
) -> PlanOptions:
    """The task's options with the statistics of its vectors.

    They are those of its whole group where all its tasks have the same spaces, as Meta-World's do:
    a number then means the same in each. Elsewhere they are the task's own.
    """
    plan = task.plan()
    members = [(other, parts) for other, parts in measured if other.group == task.group]
    kinds = {signature(other.observation_space, other.action_space) for other, _ in members}
    alike = [
        part for other, parts in members for part in parts if len(kinds) == 1 or other.id == task.id
    ]
    is_measured = any(other.id == task.id and parts for other, parts in measured)
    return with_statistics(plan, alike) if is_measured else task.options
