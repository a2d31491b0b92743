"""Score policies on a suite of tasks: ``python -m benchmarks.run --suite babyai``.

* :func:`run_benchmark` -- plays, records and summarises one policy's run; what the command calls.
* :class:`Bench` -- the command ``gato-gym bench``; :func:`main` -- by the module's name.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.console import Console

from benchmarks.playable import left_out
from benchmarks.policies import PolicyChoice, describe_policy, is_network, resolved
from benchmarks.protocol import ALL, BenchmarkError, Protocol
from benchmarks.report import side_by_side as beside
from benchmarks.report.html import NAME as REPORT
from benchmarks.report.html import write_page
from benchmarks.report.progress import progress
from benchmarks.report.summary import Summary, render, render_cost, summarise
from benchmarks.settings import BenchFlags, RunSettings, check_time_limit
from benchmarks.store.clips import Clip, read_clips
from benchmarks.store.run_store import Record, RecordError, RunHeader
from benchmarks.video.recording import check_filming, film
from benchmarks.workers.processes import play_episodes
from benchmarks.workers.scheduler import longest_first
from gato_gym.commands.common import (
    DONE,
    FAILED,
    Command,
    CommandFailed,
    Invocation,
    run_command,
)
from gato_gym.files.atomic_io import write_json
from gato_gym.terminal import new_console
from policies.processes import WorkerError
from policies.rollout.timing import NAME as COST
from policies.rollout.timing import Costs, TimeSpent
from policies.threads import available_cores

if TYPE_CHECKING:
    from gato_gym.tasks import Task

__all__ = ["Bench", "RunSettings", "main", "run_benchmark", "select_tasks"]


def run_benchmark(settings: RunSettings, *, console: Console) -> Summary:
    """Play what is not recorded yet, and summarise the whole.

    Tasks that the policy cannot play are left out and named; it plays one or more.

    Args:
        settings: What to do.
        console: Where progress is shown.

    Returns:
        The summary, which is in ``summary.json`` too.

    Raises:
        BenchmarkError: What was asked for cannot be done.
        WorkerError: A worker failed; what was played is recorded.
        RecordError: An episode could not be recorded; those before it are.
        KeyboardInterrupt: It was stopped; what was played is recorded.
    """
    for name in ("workers", "num_envs"):
        value = getattr(settings, name)
        if isinstance(value, int) and value < 1:
            option = name.replace("_", "-")
            raise BenchmarkError(f"--{option} is {value}, expected 1 or more: pass --{option} 1")
    check_time_limit(settings.policy.episode_timeout)
    check_filming(settings.record)
    tasks = select_tasks(settings.suite, settings.tasks)
    protocol = Protocol.of_tasks(
        tasks, episodes=settings.episodes, seed=settings.seed, name=settings.protocol
    )
    policy = resolved(settings.policy)  # once: what a hub id stands for may change
    described = describe_policy(policy, protocol.tasks)
    header = RunHeader(
        protocol,
        {**described, "name": settings.policy.name},
        command=settings.command,
        left_out=left_out(policy, tasks, name=settings.policy.name),
    )
    if header.left_out:
        console.print(
            f"{settings.policy.name} cannot play {len(header.left_out)} of {len(tasks)} tasks; "
            "they are left out, and named in the report",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    with Record(settings.output, header, resume=settings.resume) as record:
        return _Run(settings, policy, record, console).play(tasks)


class _Run:
    """One sitting of a run.

    Args:
        settings: What to do.
        policy: Who plays, by the folder of its checkpoint.
        record: Where it is recorded.
        console: Where progress is shown.
    """

    def __init__(
        self, settings: RunSettings, policy: PolicyChoice, record: Record, console: Console
    ) -> None:
        self.settings, self.policy, self.record, self.console = settings, policy, record, console
        self.cost = Costs.of_run(settings.output) or Costs()

    def play(self, tasks: Sequence[Task]) -> Summary:
        """Play what is not recorded yet, make videos, and summarise the whole."""
        try:
            self._play_pending(tasks)
        except BaseException:
            with suppress(OSError):  # a full disk is reported once
                self._summarise()
            raise
        try:
            summary = self._summarise()
            return self._film(summary) if self.settings.record else summary
        except OSError as error:
            raise RecordError(
                f"the summary could not be written to {self.settings.output} ({error}): make "
                "room, then resume"
            ) from error

    def _play_pending(self, tasks: Sequence[Task]) -> None:
        record, settings, header = self.record, self.settings, self.record.header
        pending = record.pending()
        counts = {task: len(keys) for task, keys in pending.items() if keys}
        if not counts:
            return
        ordered = {task.id: pending[task.id] for task in longest_first(tasks) if task.id in pending}
        reports = play_episodes(
            ordered, self.policy, workers=settings.workers, num_envs=settings.num_envs
        )
        wall, started = self.cost.wall, time.perf_counter()
        with (
            closing(reports),
            progress(
                self.console, total=header.episodes, done=len(record.results), pending=counts
            ) as advance,
        ):
            for report in reports:
                self.cost.wall = wall + time.perf_counter() - started
                if isinstance(report, TimeSpent):
                    self.cost.spent += report
                else:
                    record.append(report)
                    advance(report)

    def _film(self, summary: Summary) -> Summary:
        """Videos; the run is summarised already, and what goes wrong here changes none of it."""
        failed = []
        self.console.print(render(summary))
        self.console.print("making videos", highlight=False)
        count, workers = self.settings.record, self.settings.workers
        workers = available_cores() if workers == "ray" else workers
        for video in film(self.record, self.policy, count, workers=workers):
            line = f"{self.record.folder / video.file}" if isinstance(video, Clip) else video
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
            if isinstance(video, str):
                failed.append(video)
        summary = self._summarise()
        if failed:
            raise WorkerError(f"{len(failed)} tasks have no videos; the first: {failed[0]}")
        return summary

    def _summarise(self) -> Summary:
        """The summary of what is recorded; written down if there is anything."""
        record = self.record
        summary = summarise(
            record.header,
            tuple(record.results.values()),
            tuple(record.failures.values()),
            cost=self.cost,
            clips=read_clips(record.folder),
        )
        if record.results or record.failures:
            write_json(record.folder / COST, self.cost.to_json())
            write_json(record.folder / "summary.json", summary.to_json())
            write_page(record.folder / REPORT, summary)
        return summary


def select_tasks(suite: str, pattern: str | None) -> list[Task]:
    """The tasks of a suite that match a pattern, sorted by id.

    Args:
        suite: Suite name, or ``all``.
        pattern: As in :class:`~benchmarks.settings.RunSettings`.

    Raises:
        BenchmarkError: No such suite, or a part of the pattern matches no task.
    """
    from gato_gym.tasks import UnknownTaskError, list_tasks

    try:
        return list_tasks(None if suite == ALL else suite, pattern)
    except UnknownTaskError as error:
        raise BenchmarkError(str(error)) from error


@dataclass(frozen=True)
class Bench(BenchFlags, Command):
    """Score policies on a suite of tasks, beside random actions and the expert."""

    sections: ClassVar[Mapping[str, str]] = {"--suite": "the run", "--policy": "policies"}

    def run(self, call: Invocation) -> int:
        output, runs = self.runs(call.line())
        started = time.monotonic()
        console = new_console()
        for settings in runs[1:]:  # a mistake in the last is reported before the first plays
            describe_policy(settings.policy)
            left_out(settings.policy, select_tasks(settings.suite, settings.tasks))
        try:
            failed = [_run_and_tell(settings, console) for settings in runs]
            if len(runs) > 1:
                console.print(beside.write(output, [settings.output for settings in runs]))
        except (WorkerError, RecordError) as error:
            raise CommandFailed(f"{error}\n{_how_to_resume(call, output)}") from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_resume(call, output)) from None
        page = REPORT if len(runs) == 1 else beside.PAGE
        console.print(
            f"{time.monotonic() - started:.0f} s; episodes and figures are in {output}, "
            f"a page of them is {output / page}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if not any(failed):
            return DONE
        print(_how_to_resume(call, output, "some episodes failed"), file=sys.stderr)
        return FAILED


main = partial(run_command, Bench, prog="python -m benchmarks.run")


def _run_and_tell(settings: RunSettings, console: Console) -> bool:
    """One policy's run and its table; whether episodes failed."""
    summary = run_benchmark(settings, console=console)
    exact = _in_float32(settings, console=console)
    if not settings.record:  # printed before the videos were made
        console.print(render(summary))
    if exact is not None:
        console.print(render_cost(summary, exact))
    return bool(summary.failures or (exact is not None and exact.failures))


def _in_float32(settings: RunSettings, *, console: Console) -> Summary | None:
    """The same episodes in float32, where the run was of fewer bits, to show what those cost.

    They are recorded in a folder in the run's own.
    """
    choice = settings.policy
    if choice.precision in ("auto", "float32") or not is_network(choice.name):
        return None
    output = settings.output / "float32"
    exact = replace(
        settings,
        output=output,
        policy=replace(choice, precision="float32"),
        record=0,
        resume=settings.resume and output.exists(),
    )
    console.print(f"the same episodes in float32, beside {choice.precision}")
    return run_benchmark(exact, console=console)


def _how_to_resume(call: Invocation, output: Path, happened: str = "stopped") -> str:
    if not output.exists():
        return "stopped before the first episode ended: nothing is recorded"
    more = [] if "--output" in " ".join(call.arguments) else ["--output", str(output)]
    if "--resume" not in call.arguments:
        more.append("--resume")
    return f"{happened}; finished episodes are kept. Continue with: {call.line(*more)}"


if __name__ == "__main__":
    sys.exit(main())
