"""The pieces of work of a collection.

* :class:`CollectSettings` -- what a collection is.
* :class:`JobRunner` -- does pieces: the expert's return, a unit of episodes, or the dataset.

A task's episodes are numbered; unit u holds the attempts ``[u * n, (u + 1) * n)`` and is a file of
its own that appears when it is complete. What a unit holds depends on the settings alone, so any
number of workers makes the same dataset, and stopped work resumes at the missing units.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.minari_datasets import minari_metadata
from gato_gym.episodes.minari_writing import new_minari
from gato_gym.files.atomic_io import appearing_file, write_json
from gato_gym.files.bounded_io import as_type, parse_json, plain_json, read_bytes, read_json
from gato_gym.ranges import check_range
from gato_gym.simulators import installed_versions
from gato_gym.tasks import Task, get_suite, get_task
from policies.collection.env_faults import Beat
from policies.collection.recorder import Recorder, RecordSettings
from policies.experts.store import shipped_folder
from policies.rollout.faults import EnvironmentFault

FORMAT = 1
FEWEST_LABELLED = 4
"""Attempts in a unit at least where a network plays, which does so with all of them at a time."""

MOST_FAULTS = 3
"""Environments' faults at which a task is given up."""


@dataclass(frozen=True)
class CollectSettings:
    """What a collection is.

    Attributes:
        root: Folder of the Minari datasets; the units are under ``.collect`` there.
        record: What decides an episode.
        episodes: Episodes a task, at least if steps are given too, or None.
        steps: Recorded steps a task, at least, or None. One of the two is given, or both.
        expert_episodes: Clean episodes that measure the expert's return.
        time_limit: Seconds that a step, or a reset, may take.
    """

    root: Path
    record: RecordSettings = field(default_factory=RecordSettings)
    episodes: int | None = None
    steps: int | None = None
    expert_episodes: int = 20
    time_limit: float = 300.0

    def __post_init__(self) -> None:
        if self.episodes is None and self.steps is None:
            raise ValueError("give episodes, steps or both: how much to collect of each task")
        check_range(self, "episodes", "steps", "expert_episodes", low=1)
        check_range(self, "time_limit", above=True)

    def identity(self, task: Task) -> dict[str, Any]:
        """What a unit of a task depends on, as JSON values."""
        record: dict[str, Any] = asdict(self.record)
        for name in ("player", "most_steps"):  # older collections know neither
            if record[name] is None:
                del record[name]
        if self.record.player is not None:
            record["player"] = player_digest(self.record.player)
        if record["policy"] == "expert":
            del record["policy"]
            weights = weights_of(task)
            record |= {"weights": weights} if weights else {}
        return {
            "format": FORMAT,
            "task": task.id,
            **record,
            "expert_episodes": self.expert_episodes,
            "unit_episodes": self.unit_episodes(task),
            "packages": installed_versions(get_suite(task.suite).simulators),
        }

    def unit_episodes(self, task: Task) -> int:
        """Attempts in a unit of a task."""
        fewest = 1 if self.record.player is None else FEWEST_LABELLED
        return max(fewest, get_suite(task.suite).unit_episodes)

    def folder(self, task: Task) -> Path:
        """Where the units of a task are."""
        text = json.dumps(self.identity(task), sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
        return self.root / ".collect" / task.id / digest

    def goal(self) -> dict[str, int]:
        """How much to collect, as JSON values."""
        goals = {"episodes": self.episodes, "steps": self.steps}
        return {name: count for name, count in goals.items() if count is not None}

    def reached(self, episodes: int, steps: int) -> bool:
        """Whether so much is enough."""
        return episodes >= (self.episodes or 1) and steps >= (self.steps or 0)


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        kind: "expert", "unit" or "dataset".
        task: The task's id.
        unit: Number of the unit; for "dataset", how many units it takes.
        expert_return: The expert's mean return, once it is known.
    """

    kind: str
    task: str
    unit: int = 0
    expert_return: float | None = None


@dataclass(frozen=True)
class UnitReport:
    """What a unit holds.

    Attributes:
        lengths: Steps of each episode kept, in order.
        dropped: Attempts not kept, by reason.
        seconds: Time it took.
        faults: What the environment did wrong, and where.
    """

    lengths: list[int]
    dropped: dict[str, int]
    seconds: float
    faults: list[str] = field(default_factory=list)


def unit_path(settings: CollectSettings, task: Task, unit: int) -> Path:
    """The file of a unit."""
    return settings.folder(task) / f"unit-{unit:05d}.hdf5"


def read_report(path: Path) -> UnitReport:
    """What the unit in this file holds."""
    from gato_gym.episodes import hdf5

    with hdf5.open_file(path, "r") as file:
        return _report_of(file, path)


def _report_of(file: Any, path: Path) -> UnitReport:
    report = parse_json(str(file.attrs["report"]), f"{path}: report")
    read: UnitReport = as_type(UnitReport, report, f"{path}: report")
    return read


def read_expert_return(settings: CollectSettings, task: Task) -> float | None:
    """The expert's mean return if it has been measured."""
    path = settings.folder(task) / "expert.json"
    return float(read_json(path)["mean"]) if path.exists() else None


def is_complete(settings: CollectSettings, task: Task) -> bool:
    """Whether the task's dataset is there, made with these settings.

    Raises:
        ValueError: A dataset is there that other settings made.
    """
    name = dataset_id(task, settings.record)
    try:
        recorded = minari_metadata(name, root=settings.root).get("collect")
    except FileNotFoundError:
        return False
    if recorded is None or recorded["settings"] != plain_json(settings.identity(task)):
        raise ValueError(
            f"dataset {name!r} under {settings.root} was made with other settings: pass "
            "--overwrite to replace it, or another --root"
        )
    return bool(recorded["goal"] == settings.goal())


def dataset_id(task: Task, record: RecordSettings | None = None) -> str:
    """The Minari id of a task's dataset: the expert's own is the one that is trained on first."""
    if record is None or (record.policy == "expert" and record.player is None):
        return f"gato/{task.id}-v0"
    return f"gato-{'labelled' if record.player is not None else record.policy}/{task.id}-v0"


@functools.cache
def player_digest(name: str) -> str:
    """What the episodes of a player depend on: its name, or a network's weights."""
    from policies.registry import PolicySpec

    if PolicySpec.parse(name).kind != "network":
        return name
    from policies.gato.checkpoint import checkpoint_digest

    return checkpoint_digest(name)


def weights_of(task: Task) -> str | None:
    """A hash of the trained expert that plays a task; None where a program does."""
    path = shipped_folder(task.id) / "model.safetensors"
    if get_suite(task.suite).expert is not None or not path.is_file():
        return None
    return hashlib.blake2b(read_bytes(path), digest_size=8).hexdigest()


class JobRunner:
    """Does jobs, keeping the environment of the last task open.

    Args:
        settings: The collection.
        beat: Told the seed and the number of each step before it is played.
    """

    def __init__(self, settings: CollectSettings, *, beat: Beat = lambda seed, step: None) -> None:
        self.settings, self._beat = settings, beat
        self._recorder: Recorder | None = None

    def run(self, job: Job) -> Any:
        """Do a job; returns the expert's mean return, a `UnitReport`, or the dataset's counts.

        Raises:
            EnvironmentFault: The environment is at fault once while the expert's return is
                measured, or :data:`MOST_FAULTS` times in a unit.
        """
        task = get_task(job.task)
        self.settings.folder(task).mkdir(parents=True, exist_ok=True)
        recorder = self._recorder_of(task)
        if job.kind == "expert":
            return _measure_expert(self.settings, recorder)
        if job.kind == "unit":
            return _record_unit(self.settings, recorder, job)
        return _write_dataset(self.settings, recorder, job)

    def _recorder_of(self, task: Task) -> Recorder:
        if self._recorder is None or self._recorder.task.id != task.id:
            if self._recorder is not None:
                self._recorder.close()
                self._recorder = None
            self._recorder = Recorder(task, self.settings.record, beat=self._beat)
        return self._recorder


def _measure_expert(settings: CollectSettings, recorder: Recorder) -> float:
    returns = recorder.expert_returns(settings.expert_episodes)
    mean = float(np.mean(returns))
    write_json(settings.folder(recorder.task) / "expert.json", {"mean": mean, "returns": returns})
    return mean


def _record_unit(settings: CollectSettings, recorder: Recorder, job: Job) -> UnitReport:
    from gato_gym.episodes import hdf5

    began = time.monotonic()
    size = settings.unit_episodes(recorder.task)
    indices = range(job.unit * size, (job.unit + 1) * size)
    lengths: list[int] = []
    dropped: dict[str, int] = {}
    faults: list[str] = []
    path = unit_path(settings, recorder.task, job.unit)
    labelled = _labelled(recorder, indices) if settings.record.player is not None else {}
    with appearing_file(path) as partial, hdf5.open_file(partial, "w") as file:
        for index in indices:
            try:
                episode = (
                    labelled[index]
                    if index in labelled
                    else recorder.record(index, job.expert_return)
                )
            except EnvironmentFault as fault:
                faults.append(str(fault))
                if len(faults) >= MOST_FAULTS:
                    raise EnvironmentFault("\n".join(faults)) from fault
                recorder.reopen()
                episode = "faults"
            if isinstance(episode, Episode):
                hdf5.append_episode(file, len(lengths), episode)
                lengths.append(episode.length)
            else:
                dropped[episode] = dropped.get(episode, 0) + 1
        report = UnitReport(lengths, dropped, time.monotonic() - began, faults)
        file.attrs["report"] = json.dumps(asdict(report))
    return report


def _labelled(recorder: Recorder, indices: Sequence[int]) -> Mapping[int, Episode | str]:
    """A unit's episodes played together; none after a fault, whose episode is found one by one."""
    try:
        return recorder.record_labelled(indices)
    except EnvironmentFault:
        recorder.reopen()
        return {}


def _write_dataset(settings: CollectSettings, recorder: Recorder, job: Job) -> tuple[int, int]:
    """Copy the kept episodes of the first units until the goal is reached."""
    from gato_gym.episodes import hdf5

    task, policy, steps, episodes = recorder.task, settings.record.policy, 0, 0
    choices = "the expert's own choices" if policy == "expert" else "random"
    if settings.record.player is not None:
        choices += f", in states that {settings.record.player} came to"
    known = {} if job.expert_return is None else {"expert_return": job.expert_return}
    metadata = {
        "algorithm_name": policy,
        "description": f"{task.description}. Actions are {choices}.",
        **known,
        "collect": {"settings": settings.identity(task), "goal": settings.goal()},
    }
    with new_minari(
        dataset_id(task, settings.record),
        env=recorder.env,
        root=settings.root,
        metadata=metadata,
        replace=True,
    ) as file:
        for unit in range(job.unit):
            path = unit_path(settings, task, unit)
            with hdf5.open_file(path, "r") as source:
                for index, length in enumerate(_report_of(source, path).lengths):
                    if settings.reached(episodes, steps):
                        return episodes, steps
                    hdf5.copy_episode(source, index, file, episodes)
                    episodes, steps = episodes + 1, steps + length
    return episodes, steps
