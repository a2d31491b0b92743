"""Collect experts' episodes as Minari datasets, ``gato/<task id>-v0``.

Stopped at any moment (Ctrl-C, kill, power), the same call resumes. Episodes below
80 % of the expert's mean return, and those in which the expert lost its way, are not kept. A task
whose environment raises, hangs or returns NaN is reported at the end; the others continue.

* :func:`collect` -- the function behind ``gato-gym collect``.
* :func:`with_experts` -- the tasks that have one.
* :class:`Progress` -- one task's units so far.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Container, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from gato_gym.files.folder_lock import FolderLock
from gato_gym.tasks import Task
from gato_gym.terminal import new_console
from policies.collection.jobs import (
    MOST_FAULTS,
    CollectSettings,
    Job,
    UnitReport,
    is_complete,
    read_expert_return,
    read_report,
    unit_path,
)
from policies.collection.workers import Workers
from policies.experts import has_expert
from policies.processes import WorkerError, WorkerFailure

HOPELESS_ATTEMPTS = 256
"""Attempts after which a task gives up if fewer than one in twenty was kept."""


@dataclass
class Progress:
    """One task's units so far.

    Attributes:
        task: The task.
        settings: The collection.
        expert_return: The expert's mean return once known.
        reports: What the finished units hold.
        running: Units, or other jobs, that workers have in hand.
        seconds: Time that workers spent on it in this run.
        recorded: Episodes, and steps, recorded in this run.
        stage: "expert", "unit", "dataset", "done" or "failed".
        faults: What went wrong in this run; a failed task's last one is why it was given up.
    """

    task: Task
    settings: CollectSettings
    expert_return: float | None = None
    reports: dict[int, UnitReport] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    seconds: float = 0.0
    recorded: tuple[int, int] = (0, 0)
    stage: str = "expert"
    faults: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do in this run."""
        return self.stage in ("done", "failed")

    def load(self) -> None:
        """Take up what an earlier run left."""
        self.expert_return = read_expert_return(self.settings, self.task)
        record = self.settings.record
        if self.expert_return is not None or record.policy != "expert" or record.player is not None:
            self.stage = "unit"
        unit = 0
        while (path := unit_path(self.settings, self.task, unit)).exists():
            self.reports[unit] = read_report(path)
            unit += 1

    def next_job(self, workers: int) -> Job | None:
        """The next piece of this task's work; None while there is none to start.

        Raises:
            WorkerError: The expert's episodes are hardly ever kept.
        """
        if self.is_over or (self.stage != "unit" and self.running):
            return None
        if self.stage == "unit" and self.units_needed() is not None:
            self.stage = "dataset"
        if self.stage == "unit":
            return self._next_unit(workers)
        if self.running:
            return None
        self.running.add(0)
        return Job(self.stage, self.task.id, self.units_needed() or 0, self.expert_return)

    def _next_unit(self, workers: int) -> Job | None:
        missing = 1.0 - self.share()
        each = self.share() / len(self.reports) if self.reports else missing / workers
        if len(self.running) >= workers or each * len(self.running) >= missing:
            return None
        unit = 0
        while unit in self.reports or unit in self.running:
            unit += 1
        self.running.add(unit)
        return Job("unit", self.task.id, unit, self.expert_return)

    def finish(self, job: Job, result: Any) -> None:
        """Take a job's result, or why it has none, which ends the task for this run."""
        self.running.discard(job.unit if job.kind == "unit" else 0)
        if isinstance(result, WorkerFailure):
            self.fail(result.message)
        elif self.stage == "failed":
            pass
        elif job.kind == "expert":
            self.expert_return, self.stage = result, "unit"
        elif job.kind == "unit":
            self.reports[job.unit] = result
            self.seconds += result.seconds
            episodes, steps = self.recorded
            self.recorded = (episodes + len(result.lengths), steps + sum(result.lengths))
            self.faults += result.faults
            if len(self.faults) >= MOST_FAULTS:
                self.fail(f"{self.task.id}: given up after {len(self.faults)} faults")
        else:
            self.stage = "done"

    def fail(self, message: str) -> None:
        """Give the task up for this run; its finished units are kept."""
        self.faults.append(message)
        self.stage = "failed"

    def share(self) -> float:
        """How much of the goal the finished units hold, 0 to 1."""
        lengths = [length for report in self.reports.values() for length in report.lengths]
        there = {"episodes": len(lengths), "steps": sum(lengths)}
        return min(1.0, *(there[name] / count for name, count in self.settings.goal().items()))

    def units_needed(self) -> int | None:
        """Number of units, from the first, that reach the goal; None where they do not yet.

        Raises:
            WorkerError: The expert's episodes are hardly ever kept.
        """
        episodes = steps = unit = 0
        while unit in self.reports:
            lengths = self.reports[unit].lengths
            episodes, steps, unit = episodes + len(lengths), steps + sum(lengths), unit + 1
            if self.settings.reached(episodes, steps):
                return unit
        attempts = unit * self.settings.unit_episodes(self.task)
        if attempts >= HOPELESS_ATTEMPTS and episodes < attempts / 20:
            raise WorkerError(
                f"only {episodes} of {attempts} episodes of {self.task.id} were kept: "
                "collect with less --noise"
            )
        return None

    def dropped(self) -> dict[str, int]:
        """Attempts that were not kept, by reason."""
        return dict(sum((Counter(r.dropped) for r in self.reports.values()), Counter()))


def collect(
    tasks: Sequence[Task],
    settings: CollectSettings,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> None:
    """Collect datasets of some tasks.

    Args:
        tasks: What to collect; a task whose dataset is complete is passed over.
        settings: The collection.
        workers: Processes; None for one a core.
        overwrite: Replace datasets that other settings made.
        console: Where progress goes.

    Raises:
        FolderInUseError: Another process collects one of the tasks.
        ValueError: A dataset that other settings made is there.
        WorkerError: Some environments were at fault, or some tasks could not be collected; the
            others were. All finished units are kept.
    """
    console = console or new_console()
    incomplete = [
        Progress(task, settings) for task in tasks if not _done_before(task, settings, overwrite)
    ]
    if len(incomplete) < len(tasks):
        console.print(f"{len(tasks) - len(incomplete)} of {len(tasks)} datasets are complete")
    if not incomplete:
        return
    count = workers or os.cpu_count() or 1
    began = time.monotonic()
    with ExitStack() as locks:
        for progress in incomplete:
            locks.enter_context(FolderLock(settings.folder(progress.task)))
            progress.load()
        with Workers(settings, count) as pool, _bars(console) as bars:
            bar = bars.add_task("", total=len(incomplete), rate="")
            _run(incomplete, pool, count, bars, bar, began)
    episodes, steps = _recorded(incomplete)
    seconds = time.monotonic() - began
    finished = sum(progress.stage == "done" for progress in incomplete)
    console.print(
        f"{finished} datasets in {settings.root}: recorded {episodes:,} episodes and {steps:,} "
        f"steps in {seconds:,.0f} s with {count} workers: {_rates(episodes, steps, seconds)}"
    )
    if any(progress.faults for progress in incomplete):
        raise WorkerError(_summary(incomplete))


def _summary(incomplete: list[Progress]) -> str:
    failed = sum(progress.stage == "failed" for progress in incomplete)
    faulty = sum(bool(progress.faults) for progress in incomplete)
    head = f"faults in {faulty} of {len(incomplete)} tasks, {failed} of them"
    lines = [fault for progress in incomplete for fault in progress.faults]
    hint = "run the same command again to try what is missing; finished units are kept"
    return "\n".join([f"{head} not collected:", *lines, hint])


def with_experts(
    tasks: Sequence[Task], console: Console, *, trainable: Container[str] = ()
) -> list[Task]:
    """The tasks that have an expert; one line names the others.

    Args:
        tasks: All tasks that were asked for.
        console: Where the others are named.
        trainable: Ids of tasks whose expert can be trained.

    Raises:
        ValueError: None has one.
    """
    chosen = [task for task in tasks if has_expert(task.id)]
    missing = [task.id for task in tasks if not has_expert(task.id)]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        count = "1 task has" if len(missing) == 1 else f"{len(missing)} tasks have"
        line = f"{count} no expert yet: {shown}"
        if named := [task for task in missing if task in trainable]:
            line += f"; train one with gato-gym expert train {named[0]}, then expert ship"
        if not chosen:
            raise ValueError(f"{line}; --policy random plays without one")
        console.print(f"skipped: {line}", markup=False, highlight=False)
    return chosen


def _run(
    incomplete: list[Progress], pool: Workers, count: int, bars: Bars, bar: Any, began: float
) -> None:
    by_id = {progress.task.id: progress for progress in incomplete}
    while not all(progress.is_over for progress in incomplete):
        while pool.has_idle and (job := _next_job(incomplete, count)) is not None:
            pool.start(job)
        for job, result in pool.finished(timeout=1.0):
            progress = by_id[job.task]
            progress.finish(job, result)
            if progress.stage == "done":
                bars.console.print(_line(progress, result))
            elif isinstance(result, WorkerFailure):
                bars.console.print(result.message, style="red", markup=False, highlight=False)
        episodes, steps = _recorded(incomplete)
        under_way = next((p for p in incomplete if not p.is_over), incomplete[-1])
        bars.update(
            bar,
            completed=sum(1.0 if p.is_over else 0.99 * p.share() for p in incomplete),
            description=under_way.task.id,
            rate=_rates(episodes, steps, time.monotonic() - began),
        )


def _next_job(incomplete: list[Progress], workers: int) -> Job | None:
    """The next job of the first task that has one; the workers are shared by all that are left.

    How many units a task takes is known when the first is done: many at a time would be too many.
    """
    left = sum(not progress.is_over for progress in incomplete)
    for progress in incomplete:
        try:
            job = progress.next_job(math.ceil(workers / max(1, left)))
        except WorkerError as error:
            progress.fail(str(error))
            continue
        if job is not None:
            return job
    return None


def _done_before(task: Task, settings: CollectSettings, overwrite: bool) -> bool:
    try:
        return is_complete(settings, task)
    except ValueError:
        if overwrite:
            return False
        raise


def _recorded(incomplete: list[Progress]) -> tuple[int, int]:
    return sum(p.recorded[0] for p in incomplete), sum(p.recorded[1] for p in incomplete)


def _rates(episodes: int, steps: int, seconds: float) -> str:
    seconds = max(seconds, 1e-9)
    return f"{episodes / seconds:.1f} episodes/s, {steps / seconds:,.0f} steps/s"


def _line(progress: Progress, counts: tuple[int, int]) -> str:
    dropped = ", ".join(f"{n} {reason}" for reason, n in sorted(progress.dropped().items()))
    rates = _rates(*progress.recorded, progress.seconds) + " a worker"
    bar = progress.expert_return
    player = progress.settings.record.policy if bar is None else f"expert {bar:.3f}"
    return (
        f"{progress.task.id}: {counts[0]:,} episodes, {counts[1]:,} steps"
        f" ({player}; dropped: {dropped or 'none'})"
        + (f"; {rates}" if progress.recorded[0] else "")
        + _filter_warning(progress)
    )


def _filter_warning(progress: Progress) -> str:
    """What to do about episodes below the expert's, where they are more than a third."""
    dropped, kept = progress.dropped(), sum(len(r.lengths) for r in progress.reports.values())
    below, played = dropped.get("below the expert", 0), kept + sum(dropped.values())
    share = progress.settings.record.keep
    few = f"\n{below} of {played} episodes return less than {share:.0%} of the expert: "
    return f"{few}--keep 0 keeps them" if 3 * below > played else ""


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        console=console,
    )
