"""Minari datasets as tasks to train on, whatever environment they are of.

* :class:`DatasetTask` -- the datasets of one environment: spaces, token options, episodes.
* :func:`find_tasks` -- the tasks of some datasets.

:mod:`policies.training.data.encoding` makes shards of them.

A task is an environment: its id is the environment's, or the dataset's name where the dataset names
no environment. In the mixture each task is a group by itself, or the tasks of a suite are one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.jat import HubRows, import_rows, read_rows
from gato_gym.episodes.minari_datasets import (
    episodes_of,
    find_minari,
    folder_of,
    returns_of,
    with_steps,
)
from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, compile_plan
from gato_gym.tasks import Task, UnknownTaskError, get_task
from policies.collection.filtering import least_return, windowed_return
from policies.gato.task_specs import signature
from policies.processes import JobPool, caller, results_of

Place = tuple[int, int]
"""Number of a source, and of an episode in it."""

FEWEST_READ = 8
"""Datasets that a process of its own reads, at least: it takes a second to begin."""

USUAL_OPTIONS = PlanOptions(memory="none")
"""Token options of an environment that is not registered, as far as no trial says more: where the
observation says all that matters, a memory does more harm than it does good elsewhere
(docs/memory.md)."""


@dataclass(frozen=True)
class Source:
    """One dataset of a task.

    Attributes:
        dataset: A ``minari.MinariDataset``, the whole or a part (filtered or split).
        returns: float64 ``[E]``, of its episodes.
        share: Share of its expert's return that an episode must reach; 0 keeps every episode.
    """

    dataset: Any
    returns: NDArray[np.float64]
    share: float

    @classmethod
    def of(cls, dataset: Any, share: float | None) -> Source:
        """The source that a dataset is; without a share it has :func:`usual_share`.

        Raises:
            ValueError: It holds no episode, or a return is no finite number.
        """
        dataset = with_steps(dataset)
        if not dataset.total_episodes:
            stored = dataset.storage.total_episodes
            raise ValueError(
                f"dataset {dataset.id!r} holds no episode: expected at least one, "
                "record some with gato-gym record"
                + (f", or keep some of its {stored} where it is filtered" if stored else "")
            )
        return cls(dataset, returns_of(dataset), usual_share(dataset) if share is None else share)

    @cached_property
    def expert_return(self) -> float:
        """The largest mean return of a window of its episodes."""
        return windowed_return(self.returns)

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """bool ``[E]``: episodes that are good enough."""
        if not self.share:
            return np.ones(len(self.returns), np.bool_)
        return self.returns >= least_return(self.expert_return, self.share)

    def episodes(self) -> Iterator[Episode]:
        """The kept ones, in order."""
        return itertools.compress(episodes_of(self.dataset), self.kept)

    @cached_property
    def contents(self) -> str:
        """A hash of the dataset's files: equal returns do not make equal episodes."""
        digest, folder = hashlib.blake2b(digest_size=8), Path(self.dataset.storage.data_path)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            digest.update(path.relative_to(folder).as_posix().encode() + content)
        return digest.hexdigest()

    def identity(self, *, contents: bool = True) -> dict[str, Any]:
        """What its content is known by, as JSON values.

        Args:
            contents: Whether by its files too, which older versions did not ask for.
        """
        indices = np.asarray(self.dataset.episode_indices, np.int64)
        whole = np.array_equal(indices, np.arange(self.dataset.storage.total_episodes))
        part = {} if whole else {"part": _digest(indices)}
        return {
            "dataset": self.dataset.id,
            "episodes": int(self.dataset.total_episodes),
            "steps": int(self.dataset.total_steps),
            "returns": _digest(self.returns),
            "keep": self.share,
            **({"contents": self.contents} if contents else {}),
            **part,
        }


def usual_share(dataset: Any) -> float:
    """Share of the expert's return that is asked of a dataset's episodes: 0.8, as published.

    None is asked where this package recorded one policy, as its metadata say: returns then differ
    by the luck of the start, and the best episodes are the easy ones.
    """
    metadata = dataset.storage.metadata
    recorded = "gato-gym" in (metadata.get("author") or ()) and {"expert_return", "collect"} & {
        *metadata
    }
    return 0.0 if recorded else 0.8


def _digest(array: NDArray[Any]) -> str:
    return hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class DatasetTask:
    """The datasets of one environment.

    Attributes:
        id: The environment's id, or the dataset's name.
        observation_space, action_space: Spaces of one environment.
        options: How they become tokens, without the vectors' statistics.
        sources: The datasets.
        group: What the mixture knows it by, and whose vectors have the same statistics.
    """

    id: str
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    options: PlanOptions
    sources: tuple[Source, ...]
    group: str

    def plan(self, options: PlanOptions | None = None) -> Plan:
        """The plan of its spaces."""
        return compile_plan(self.observation_space, self.action_space, options or self.options)

    def episodes(self, places: Sequence[Place] | None = None) -> Iterator[Episode]:
        """The kept episodes of all its datasets, or those at these places."""
        if places is None:
            return itertools.chain.from_iterable(source.episodes() for source in self.sources)
        at = ((self.sources[number].dataset, index) for number, index in places)
        return (next(episodes_of(dataset, first=index)) for dataset, index in at)

    def places(self) -> list[Place]:
        """Where the kept episodes are."""
        return [
            (number, int(index))
            for number, source in enumerate(self.sources)
            for index in np.flatnonzero(source.kept)
        ]

    @property
    def counts(self) -> tuple[int, int]:
        """Episodes that are kept, and all."""
        return (
            sum(int(source.kept.sum()) for source in self.sources),
            sum(len(source.kept) for source in self.sources),
        )

    def expert_return(self) -> float:
        """Mean return of the recorded policy: of clean episodes as a dataset has it, or of all."""
        recorded = [source.dataset.storage.metadata.get("expert_return") for source in self.sources]
        means = [
            float(source.returns.mean() if value is None else value)
            for value, source in zip(recorded, self.sources, strict=True)
        ]
        return float(np.average(means, weights=[len(source.returns) for source in self.sources]))

    def filter_warning(self) -> str | None:
        """A sentence about the episodes left out, where they are more than a third; else None."""
        kept, total = self.counts
        if 3 * (total - kept) <= total:
            return None
        share = max(source.share for source in self.sources)
        expert = max(source.expert_return for source in self.sources)
        return (
            f"{total - kept} of {total} episodes of {self.id!r} are left out: they return less "
            f"than {share:.0%} of the expert's windowed return, {expert:.2f}; --keep 0 trains on "
            "all of them"
        )

    @property
    def environment(self) -> str | None:
        """The name that a person can make its environment by, such as ``module:Mine-v0``; None
        where the dataset names none. Nothing is made by it here.
        """
        dataset = self.sources[0].dataset
        name = dataset.storage.metadata.get("environment")
        if name is None and dataset.env_spec is not None:
            name = dataset.env_spec.id
        return name if name is not None and re.fullmatch(r"[\w./:-]+", name) else None

    def identity(self, *, contents: bool = True) -> dict[str, Any]:
        """What its tokens depend on, as JSON values; ``contents`` as in :meth:`Source.identity`."""
        return {
            "sources": [source.identity(contents=contents) for source in self.sources],
            "options": self.options.to_json(),
        }

    def demonstration(self) -> Episode:
        """An episode to ship: the first clean success, or else the one of the highest return."""
        best: Episode | None = None
        for episode in self.episodes():
            if episode.info.get("success") and not episode.info.get("noise"):
                return episode
            if best is None or episode.total_return > best.total_return:
                best = episode
        assert best is not None, "the best window of a dataset has an episode that is good enough"
        return best

    def needs_prompt(self, tasks: Iterable[DatasetTask]) -> bool:
        """Whether only a demonstration identifies it: others look the same, without a text."""
        spaces = signature(self.observation_space, self.action_space)
        alike = [t for t in tasks if signature(t.observation_space, t.action_space) == spaces]
        return len(alike) > 1 and not self.plan().has_text


def find_tasks(
    names: Sequence[str | Path | Any],
    *,
    share: float | None = None,
    layout: str | None = None,
    memory: str | None = None,
    changes: Mapping[str, Any] | None = None,
    group_by: str = "task",
    workers: int = 1,
) -> list[DatasetTask]:
    """The tasks of some datasets, sorted by id.

    Args:
        names: Ids of Minari datasets, paths of their folders or files, or loaded ones, whole or in
            part; or names of :class:`gato_gym.episodes.jat.HubRows`, which become Minari datasets.
            Those of one environment are one task.
        share: Share of the expert's windowed return that an episode must reach; 0 keeps all, None
            leaves it to :func:`usual_share`.
        layout: "lean" or "paper"; None takes the registered task's, or "lean".
        memory: "all", "observations" or "none"; None takes the registered task's, or "none".
        changes: Other fields of :class:`~gato_gym.PlanOptions`.
        group_by: "task", or "suite" for one group of a suite's registered tasks.
        workers: Processes that read them, where they are many.

    Raises:
        FileNotFoundError: A dataset is not there.
        ValueError: It cannot be read, has no episode, or two of one environment differ in spaces.
        WorkerError: A process failed, or was killed.
    """
    tasks_by_id: dict[str, DatasetTask] = {}
    calls = [partial(_task_of, find_minari(_imported(name)), share, group_by) for name in names]
    count = min(workers, len(calls) // FEWEST_READ)
    if count < 2:
        tasks = [call() for call in calls]
    else:
        with JobPool(caller, count=count) as pool:
            tasks = results_of(pool, calls)
    for task in tasks:
        changed_options = {"layout": layout, "memory": memory, **(changes or {})}
        changed_options = {
            key: value for key, value in changed_options.items() if value is not None
        }
        if "layout" in changed_options:
            changed_options.setdefault("text", "")
        options = PlanOptions.from_json({**task.options.to_json(), **changed_options})
        task = dataclasses.replace(task, options=options)
        before = tasks_by_id.get(task.id)
        if before is not None:
            _check_same_spaces(before, task)
            task = dataclasses.replace(before, sources=before.sources + task.sources)
        tasks_by_id[task.id] = task
    return [tasks_by_id[task] for task in sorted(tasks_by_id)]


def _imported(name: Any) -> Any:
    """The Minari dataset of rows on the hub, which are streamed into it where it is not there.

    The rows of a registered game or level have its spaces; those of others, which come from other
    versions of an environment, have the spaces that they imply.
    """
    rows = HubRows.parse(name) if isinstance(name, str) else None
    if rows is None:
        return name
    if not folder_of(rows.dataset_id, None).exists():
        task = registered_task(rows.configuration)
        known = task is not None and task.suite in ("atari", "babyai")
        with nullcontext() if not known or task is None else closing(task.make()) as env:
            import_rows(read_rows(name), rows.dataset_id, env=env)
    return rows.dataset_id


def _task_of(dataset: Any, share: float | None, group_by: str) -> DatasetTask:
    source = (Source.of(dataset, share),)
    name = dataset.env_spec.id if dataset.env_spec is not None else None
    registered = registered_task(name) if name is not None and name.startswith("Gato/") else None
    if registered is not None:
        env = registered.make()
        both_spaces = env.observation_space, env.action_space
        env.close()
        group = registered.suite if group_by == "suite" else registered.id
        return DatasetTask(registered.id, *both_spaces, registered.options, source, group)
    both_spaces, name = (dataset.observation_space, dataset.action_space), name or dataset.id
    return DatasetTask(name, *both_spaces, USUAL_OPTIONS, source, name)


def registered_task(name: str) -> Task | None:
    """The registered task of a name, if there is one."""
    try:
        return get_task(name)
    except UnknownTaskError:
        return None


def _check_same_spaces(first: DatasetTask, second: DatasetTask) -> None:
    first_spaces = signature(first.observation_space, first.action_space)
    second_spaces = signature(second.observation_space, second.action_space)
    if first_spaces != second_spaces:
        raise ValueError(
            f"two datasets of {first.id!r} have other spaces, {first_spaces} and {second_spaces}: "
            "expected those of one environment; train on one of them"
        )
