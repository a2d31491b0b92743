"""Score a policy on a suite of tasks: ``python -m benchmarks.run --suite babyai``.

* :class:`RunSettings` -- the arguments.
* :func:`run_benchmark` -- plays, records and summarises; what the command calls.
* :func:`main` -- the command. Exit status 0 when every episode was played, 2 when what was
  asked for cannot be done, 130 after Ctrl-C, 1 when an environment, a worker or the disk failed.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks.clock import TimeSpent
from benchmarks.faults import check_time_limit
from benchmarks.page import NAME as REPORT
from benchmarks.page import write_page
from benchmarks.playing import PolicyChoice
from benchmarks.progress import progress
from benchmarks.protocol import BenchmarkError, Protocol
from benchmarks.record import Record, RecordError, RunHeader, write_json
from benchmarks.report import Summary, render, render_cost, summarise
from benchmarks.workers import WorkerError, play_episodes

if TYPE_CHECKING:
    from gato_gym.tasks import Task

DEFAULT_POLICY = "gato-mini"


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class RunSettings:
    """The arguments of a run.

    Attributes:
        suite: Suite name.
        output: Folder for ``run.json``, ``results.jsonl``, ``summary.json`` and ``report.html``.
        tasks: Task ids or patterns with ``*``, separated by commas, with or without the suite's
            prefix; None means the whole suite.
        policy: Who plays, and how.
        episodes: Episodes of each task.
        num_envs: Environments of a task played at a time; None chooses.
        seed: What the episodes' seeds are derived from.
        workers: Processes.
        resume: Take up what ``output`` holds.
        command: What was typed, for the record.
    """

    suite: str
    output: Path
    tasks: str | None = None
    policy: PolicyChoice = field(default_factory=lambda: PolicyChoice(DEFAULT_POLICY))
    episodes: int = 20
    num_envs: int | None = None
    seed: int = 0
    workers: int = field(default_factory=available_cores)
    resume: bool = False
    command: str | None = None


def run_benchmark(settings: RunSettings, *, console: Console) -> Summary:
    """Play what is not recorded yet, and summarise the whole.

    Args:
        settings: What to do.
        console: Where progress is shown.

    Returns:
        The summary, which is in ``summary.json`` too.

    Raises:
        BenchmarkError: What was asked for cannot be done.
        WorkerError: A worker failed; what was played is recorded.
        RecordError: An episode could not be recorded; those before it are.
        KeyboardInterrupt: Likewise recorded.
    """
    for name in ("workers", "num_envs"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            option = name.replace("_", "-")
            raise BenchmarkError(f"--{option} is {value}, expected 1 or more: pass --{option} 1")
    check_time_limit(settings.policy.episode_timeout)
    tasks = select_tasks(settings.suite, settings.tasks)
    protocol = Protocol.of_tasks(tasks, episodes=settings.episodes, seed=settings.seed)
    record = Record(
        settings.output,
        RunHeader(
            protocol,
            describe_policy(settings.policy, protocol.tasks),
            command=settings.command,
        ),
        resume=settings.resume,
    )
    with record:
        return _play_pending(settings, record, tasks, console)


def _play_pending(
    settings: RunSettings, record: Record, tasks: Sequence[Task], console: Console
) -> Summary:
    protocol = record.header.protocol
    pending = record.pending()
    longest_first = sorted(tasks, key=lambda task: -(task.max_episode_steps or 0))
    ordered = {task.id: pending[task.id] for task in longest_first}
    counts = {task: len(keys) for task, keys in pending.items() if keys}
    total = len(protocol.tasks) * protocol.episodes
    reports = play_episodes(
        ordered, settings.policy, workers=settings.workers, num_envs=settings.num_envs
    )

    def finish() -> Summary:
        summary = summarise(
            record.header, tuple(record.results.values()), tuple(record.failures.values())
        )
        if record.results or record.failures:
            write_json(settings.output / "summary.json", summary.to_json())
            write_page(settings.output / REPORT, summary)
        return summary

    try:
        with (
            closing(reports),
            progress(console, total=total, done=len(record.results), pending=counts) as advance,
        ):
            for report in reports:
                if not isinstance(report, TimeSpent):
                    record.append(report)
                    advance(report)
    except BaseException:
        with suppress(OSError):  # a full disk is told about once
            finish()
        raise
    try:
        return finish()
    except OSError as error:
        raise RecordError(
            f"the summary could not be written to {settings.output} ({error}): make room, then "
            "resume"
        ) from error


def select_tasks(suite: str, pattern: str | None) -> list[Task]:
    """The tasks of a suite that match a pattern, sorted by id.

    Args:
        suite: Suite name.
        pattern: As in :class:`RunSettings`.

    Raises:
        BenchmarkError: No such suite, or a part of the pattern matches no task.
    """
    from gato_gym.tasks import UnknownTaskError, list_tasks

    try:
        return list_tasks(suite, pattern)
    except UnknownTaskError as error:
        raise BenchmarkError(str(error)) from error


def describe_policy(choice: PolicyChoice, tasks: Iterable[str] = ()) -> dict[str, Any]:
    """What identifies a policy in a record; the weights by a hash of their files.

    Args:
        choice: The policy.
        tasks: Task ids that it plays; the trained experts among theirs have weights.

    Raises:
        BenchmarkError: There is no policy of that name.
    """
    weights = None
    if choice.name == "expert":
        trained = Path(str(resources.files("policies"))) / "experts" / "trained"
        weights = _folder_hash(*(trained / task for task in sorted(tasks)))
    if choice.name not in ("random", "expert"):
        shipped = Path(str(resources.files("policies"))) / "checkpoints"
        names = sorted(path.parent.name for path in shipped.glob("*/config.json"))
        folder = Path(choice.name)
        if not folder.is_dir():
            folder = shipped / choice.name
        if not (folder / "config.json").is_file():
            known = ["random", "expert", *names]
            close = difflib.get_close_matches(choice.name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "give one of these, or its path"
            raise BenchmarkError(
                f"no policy {choice.name!r}, expected {', '.join(known)} or a checkpoint folder: "
                + hint
            )
        weights = _folder_hash(folder)
    return {
        "name": choice.name,
        "weights": weights,
        "prompt": choice.prompt,
        "deterministic": choice.deterministic,
        "seed": choice.seed,
        "precision": choice.precision,
    }


def _folder_hash(*folders: Path) -> str | None:
    """A hash of everything in checkpoints that decides an action; None where there is nothing."""
    digest = hashlib.sha256()
    found = False
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix not in (".csv", ".md"):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256")
                name = path.relative_to(folder).as_posix()
                digest.update(f"{name}\n".encode() + content.digest())
                found = True
    return digest.hexdigest()[:16] if found else None


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console, errors = Console(), Console(stderr=True)
    try:
        settings = _settings(arguments)
        started = time.monotonic()
        summary = run_benchmark(settings, console=console)
        exact = _in_float32(settings, console=console)
    except BenchmarkError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except (WorkerError, RecordError) as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        errors.print(_how_to_resume(arguments, settings), markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        errors.print(_how_to_resume(arguments, settings), markup=False, soft_wrap=True)
        return 130
    console.print(render(summary))
    if exact is not None:
        console.print(render_cost(summary, exact))
    console.print(
        f"{time.monotonic() - started:.0f} s; episodes and figures are in {settings.output}, "
        f"a page of them is {settings.output / REPORT}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if summary.failures or (exact is not None and exact.failures):
        errors.print(_how_to_resume(arguments, settings, "some episodes failed"), soft_wrap=True)
        return 1
    return 0


def _in_float32(settings: RunSettings, *, console: Console) -> Summary | None:
    """The same episodes in float32, where the run was of fewer bits: what those cost is to be told.

    They are recorded in a folder in the run's own.
    """
    choice = settings.policy
    if choice.precision in ("auto", "float32") or choice.name in ("random", "expert"):
        return None
    output = settings.output / "float32"
    exact = replace(
        settings,
        output=output,
        policy=replace(choice, precision="float32"),
        resume=settings.resume and output.exists(),
    )
    console.print(f"the same episodes in float32, beside {choice.precision}")
    return run_benchmark(exact, console=console)


def _how_to_resume(
    arguments: Sequence[str], settings: RunSettings, happened: str = "stopped"
) -> str:
    if not settings.output.exists():
        return "stopped before the first episode ended: nothing is recorded"
    command = ["python", "-m", "benchmarks.run", *arguments]
    if "--output" not in " ".join(arguments):
        command += ["--output", str(settings.output)]
    if "--resume" not in arguments:
        command.append("--resume")
    return f"{happened}; finished episodes are kept. Continue with: {shlex.join(command)}"


def _settings(arguments: Sequence[str]) -> RunSettings:
    options = _parser().parse_args(arguments)
    if options.resume and options.output is None:
        raise BenchmarkError(
            "--resume without --output, expected the folder to resume: pass --output"
        )
    name = Path(options.policy).name or "policy"
    if options.deterministic is None:
        options.deterministic = name == "expert"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return RunSettings(
        suite=options.suite,
        output=options.output or Path("results") / f"{options.suite}-{name}-{stamp}",
        tasks=options.tasks,
        policy=PolicyChoice(
            options.policy,
            prompt=options.prompt,
            deterministic=options.deterministic,
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            episode_timeout=options.episode_timeout,
        ),
        episodes=options.episodes,
        num_envs=options.num_envs,
        seed=options.seed,
        workers=options.workers,
        resume=options.resume,
        command=shlex.join(["python", "-m", "benchmarks.run", *arguments]),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Score a policy on a suite of tasks, beside random actions and the expert.",
    )
    add = parser.add_argument
    add("--suite", required=True, help="atari, babyai, dm_control, metaworld or mujoco")
    add("--tasks", metavar="PATTERN", help="task ids or patterns, separated by commas: 'go-*,open'")
    add(
        "--policy",
        default=DEFAULT_POLICY,
        metavar="NAME|FOLDER",
        help="a shipped checkpoint, a checkpoint folder, expert or random (default: %(default)s)",
    )
    add("--episodes", type=int, default=20, metavar="N", help="of each task (default: %(default)s)")
    add("--num-envs", type=int, metavar="N", help="played at a time; changes speed, not results")
    add("--seed", type=int, default=0, metavar="S", help="chooses the episodes (default: 0)")
    add("--prompt", choices=("shipped", "none"), default="shipped", help="default: %(default)s")
    acting = parser.add_mutually_exclusive_group()
    acting.add_argument(
        "--deterministic",
        action="store_true",
        default=None,
        help="the most likely action (default of the expert)",
    )
    acting.add_argument(
        "--sample",
        dest="deterministic",
        action="store_false",
        help="sampled actions (default of the others)",
    )
    add(
        "--workers",
        type=int,
        default=available_cores(),
        metavar="N",
        help="processes (default: %(default)s)",
    )
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: %(default)s")
    add(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16", "int8"),
        help="of the weights; with bfloat16 and int8 the episodes are played in float32 too, and "
        "the difference is told (default: float32 on a CPU, bfloat16 on a GPU)",
    )
    add(
        "--episode-timeout",
        type=float,
        metavar="SECONDS",
        help="an episode whose environment takes longer has failed (default: none does)",
    )
    add("--output", type=Path, metavar="DIR", help="default: results/SUITE-POLICY-TIME")
    add("--resume", action="store_true", help="take up the run that --output holds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
