"""The pieces of work of a collection, and the processes that do them.

* :class:`CollectSettings` -- what a collection is.
* :func:`run_job` -- does one piece: the expert's return, a unit of episodes, or the dataset.
* :class:`Workers` -- processes that do pieces, each with its own environments.

A task's episodes are numbered; unit u holds the attempts ``[u * n, (u + 1) * n)`` and is a file of
its own that appears when it is complete. What a unit holds depends on the settings alone, so any
number of workers makes the same dataset, and work that was stopped goes on at the missing units.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from gato_gym.episodes import Episode, minari_metadata, new_minari
from gato_gym.tasks import Task, get_task
from policies.threads import one_thread
from policies.training.recording import Recorder, RecordSettings

FORMAT = 1
UNIT_EPISODES = {"babyai": 64, "metaworld": 8}
"""Attempts in a unit: a few seconds of work."""

SIMULATORS = {"babyai": ("minigrid",), "metaworld": ("metaworld", "mujoco")}


@dataclass(frozen=True)
class CollectSettings:
    """What a collection is.

    Attributes:
        root: Folder of the Minari datasets; the units are under ``.collect`` there.
        record: What decides an episode.
        episodes: Episodes a task, or None.
        steps: Recorded steps a task, at least, or None. One of the two is given.
        expert_episodes: Clean episodes that measure the expert's return.
    """

    root: Path
    record: RecordSettings = field(default_factory=RecordSettings)
    episodes: int | None = None
    steps: int | None = None
    expert_episodes: int = 20

    def __post_init__(self) -> None:
        if (self.episodes is None) == (self.steps is None):
            raise ValueError("give either episodes or steps: how much to collect of each task")
        if (self.episodes or self.steps or 0) < 1 or self.expert_episodes < 1:
            raise ValueError("episodes, steps and expert_episodes are counts of 1 or more")

    def identity(self, task: Task) -> dict[str, Any]:
        """What a unit of a task depends on, as JSON values."""
        return {
            "format": FORMAT,
            "task": task.id,
            **asdict(self.record),
            "expert_episodes": self.expert_episodes,
            "unit_episodes": UNIT_EPISODES[task.suite],
            "packages": {name: _version(name) for name in SIMULATORS[task.suite]},
        }

    def folder(self, task: Task) -> Path:
        """Where the units of a task are."""
        text = json.dumps(self.identity(task), sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
        return self.root / ".collect" / task.id / digest

    def goal(self) -> dict[str, int]:
        """How much to collect, as JSON values."""
        return {"episodes": self.episodes} if self.episodes else {"steps": self.steps or 0}


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
    """

    lengths: list[int]
    dropped: dict[str, int]
    seconds: float


def unit_path(settings: CollectSettings, task: Task, unit: int) -> Path:
    """The file of a unit."""
    return settings.folder(task) / f"unit-{unit:05d}.hdf5"


def read_report(path: Path) -> UnitReport:
    """What the unit in this file holds."""
    from gato_gym import hdf5

    with hdf5.open_file(path, "r") as file:
        return UnitReport(**json.loads(file.attrs["report"]))


def read_expert_return(settings: CollectSettings, task: Task) -> float | None:
    """The expert's mean return if it has been measured."""
    path = settings.folder(task) / "expert.json"
    return float(json.loads(path.read_text())["mean"]) if path.exists() else None


def is_complete(settings: CollectSettings, task: Task) -> bool:
    """Whether the task's dataset is there, made with these settings.

    Raises:
        ValueError: A dataset is there that other settings made.
    """
    name = dataset_id(task)
    try:
        found = minari_metadata(name, root=settings.root).get("collect")
    except FileNotFoundError:
        return False
    if found is None or found["settings"] != json.loads(json.dumps(settings.identity(task))):
        raise ValueError(
            f"dataset {name!r} under {settings.root} was made with other settings: pass "
            "--overwrite to replace it, or another --root"
        )
    return bool(found["goal"] == settings.goal())


def dataset_id(task: Task) -> str:
    """The Minari id of a task's dataset."""
    return f"gato/{task.id}-v0"


class JobRunner:
    """Does jobs, keeping the environment of the last task open.

    Args:
        settings: The collection.
    """

    def __init__(self, settings: CollectSettings) -> None:
        self.settings = settings
        self._recorder: Recorder | None = None

    def run(self, job: Job) -> Any:
        """Do a job; returns the expert's mean return, a `UnitReport`, or the dataset's counts."""
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
            self._recorder = Recorder(task, self.settings.record)
        return self._recorder


def _measure_expert(settings: CollectSettings, recorder: Recorder) -> float:
    returns = recorder.expert_returns(settings.expert_episodes)
    mean = float(np.mean(returns))
    path = settings.folder(recorder.task) / "expert.json"
    with _appearing(path) as partial:
        partial.write_text(json.dumps({"mean": mean, "returns": returns}))
    return mean


def _record_unit(settings: CollectSettings, recorder: Recorder, job: Job) -> UnitReport:
    from gato_gym import hdf5

    began = time.monotonic()
    expert_return = job.expert_return
    assert expert_return is not None, "the expert is measured before units are recorded"
    size = UNIT_EPISODES[recorder.task.suite]
    lengths: list[int] = []
    dropped: dict[str, int] = {}
    path = unit_path(settings, recorder.task, job.unit)
    with _appearing(path) as partial, hdf5.open_file(partial, "w") as file:
        for index in range(job.unit * size, (job.unit + 1) * size):
            episode = recorder.record(index, expert_return)
            if isinstance(episode, Episode):
                hdf5.append_episode(file, len(lengths), episode)
                lengths.append(episode.length)
            else:
                dropped[episode] = dropped.get(episode, 0) + 1
        report = UnitReport(lengths, dropped, time.monotonic() - began)
        file.attrs["report"] = json.dumps(asdict(report))
    return report


def _write_dataset(settings: CollectSettings, recorder: Recorder, job: Job) -> tuple[int, int]:
    """Copy the kept episodes of the first units until the goal is reached."""
    from gato_gym import hdf5

    task, steps, episodes = recorder.task, 0, 0
    metadata = {
        "algorithm_name": "expert",
        "description": f"{task.description}. Actions are the expert's own choices.",
        "expert_return": job.expert_return,
        "collect": {"settings": settings.identity(task), "goal": settings.goal()},
    }
    with new_minari(
        dataset_id(task), env=recorder.env, root=settings.root, metadata=metadata, replace=True
    ) as file:
        for unit in range(job.unit):
            with hdf5.open_file(unit_path(settings, task, unit), "r") as source:
                for index, length in enumerate(json.loads(source.attrs["report"])["lengths"]):
                    if episodes == settings.episodes or steps >= (settings.steps or np.inf):
                        return episodes, steps
                    hdf5.copy_episode(source, index, file, episodes)
                    episodes, steps = episodes + 1, steps + length
    return episodes, steps


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that becomes ``path`` when the block ends without an error."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


class WorkerError(RuntimeError):
    """A worker failed or died."""


class Workers:
    """Processes that do jobs of a collection; each has one thread of linear algebra.

    Args:
        settings: The collection.
        count: Number of processes.
    """

    def __init__(self, settings: CollectSettings, count: int) -> None:
        context = get_context("spawn")
        self._idle: list[Connection] = []
        self._busy: dict[Connection, Job] = {}
        self._processes = []
        with one_thread():
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, settings), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._idle.append(ours)

    @property
    def has_idle(self) -> bool:
        """Whether a worker has nothing to do."""
        return bool(self._idle)

    @property
    def is_working(self) -> bool:
        """Whether a worker has something to do."""
        return bool(self._busy)

    def start(self, job: Job) -> None:
        """Give a job to an idle worker."""
        connection = self._idle.pop()
        self._busy[connection] = job
        connection.send(job)

    def finished(self, timeout: float | None = None) -> list[tuple[Job, Any]]:
        """Wait until a job is done, or the timeout is over; returns jobs with their results.

        Raises:
            WorkerError: A job failed, or its worker died.
        """
        done = []
        for ready in wait(list(self._busy), timeout):
            assert isinstance(ready, Connection)
            job = self._busy.pop(ready)
            try:
                error, result = ready.recv()
            except (EOFError, ConnectionError) as cause:
                raise WorkerError(
                    f"the worker of {job.task} died; its unit is lost, all others are kept: run "
                    "the command again (with fewer --workers if memory ran out)"
                ) from cause
            if error is not None:
                raise WorkerError(f"{job.kind} of {job.task} failed:\n{error}")
            self._idle.append(ready)
            done.append((job, result))
        return done

    def stop(self) -> None:
        """End the processes; the units in hand are lost."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(timeout=10)
            process.kill()
            process.join()


def _work(connection: Connection, settings: CollectSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and terminates
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # cleanly: no half-written files stay
    runner = JobRunner(settings)
    while True:
        try:
            job = connection.recv()
        except EOFError:  # the parent is gone
            return
        try:
            connection.send((None, runner.run(job)))
        except Exception:  # reported by the parent, whatever it is
            connection.send((traceback.format_exc(), None))
