"""Measure random and expert play: ``python -m benchmarks.experts --suite babyai``.

Both play the same episodes under the benchmark's own protocol. What is measured of a task is in the
file that its suite names as soon as it is, those with an expert first; where the suite was measured
under another protocol, when all of it is. Interrupted, it resumes when started again. ``--check``
plays each expert's first episodes again and fails where it drifted.

* :class:`ReferenceSettings` -- what is measured.
* :func:`measure` -- plays both and returns the suite's entry; :func:`measure_into_file` writes it.
* :func:`merged` -- an entry with some tasks of another.
* :func:`check` -- whether the experts still score what is recorded.
* :data:`PINNED` -- how many episodes of each expert are kept one by one.
* :func:`find_drift` -- plays them again and reports what differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from rich.console import Console

from benchmarks.policies import PolicyChoice, describe_policy
from benchmarks.protocol import ALL, BenchmarkError, Protocol, differences, listed
from benchmarks.report.summary import Summary
from benchmarks.report.task_summary import TaskSummary
from benchmarks.run import run_benchmark, select_tasks
from benchmarks.settings import RunSettings
from benchmarks.store.run_store import read_run
from benchmarks.workers.processes import play_episodes
from gato_gym.commands.flags import flag
from gato_gym.files.atomic_io import write_json
from gato_gym.files.bounded_io import read_json
from gato_gym.simulators import installed_versions
from gato_gym.tasks import get_suite, list_suites
from policies.experts import has_expert
from policies.processes import WorkerError
from policies.rollout.outcomes import EpisodeFailure, EpisodeResult
from policies.rollout.timing import TimeSpent
from policies.threads import available_cores

PINNED = 3
"""Episodes of each expert whose returns are kept: the first ones of the measurement."""

EPISODES = 100
"""Episodes of each task and player; each recorded figure says how many it has."""

TOLERANCE = 0.02
"""Share of the pinned mean by which an expert may differ."""


def first_returns(results: Sequence[EpisodeResult]) -> dict[str, list[float]]:
    """Returns of the first :data:`PINNED` episodes, by task, in the order of their numbers."""
    returns: dict[str, list[float]] = {}
    for result in sorted(results, key=lambda result: (result.key.task, result.key.index)):
        if result.key.index < PINNED:
            returns.setdefault(result.key.task, []).append(round(result.total_return, 6))
    return returns


def find_drift(entry: Mapping[str, Any], tasks: Sequence[str], *, workers: int) -> list[str]:
    """Experts that no longer score what they did, a line each.

    Args:
        entry: What was measured of a suite.
        tasks: Task ids; those without pinned episodes are reported too.
        workers: Processes.

    Raises:
        BenchmarkError: A task or its expert cannot be made.
        WorkerError: A worker process or an episode failed.
    """
    protocol = Protocol.from_json(entry["protocol"])
    pinned = {task: entry["tasks"].get(task, {}).get("expert", {}).get("first") for task in tasks}
    drifted = [
        f"{task}: no pinned episodes of its expert are recorded, expected {PINNED}"
        for task, returns in pinned.items()
        if not returns
    ]
    known = [task for task, returns in pinned.items() if returns]
    first = replace(protocol, episodes=min(PINNED, protocol.episodes))
    pending = {task: first.episodes_of(task) for task in known}
    choice = PolicyChoice("expert", seed=protocol.seed, deterministic=None)
    with closing(play_episodes(pending, choice, workers=workers)) as reports:
        outcomes = [report for report in reports if not isinstance(report, TimeSpent)]
    failures = [each for each in outcomes if isinstance(each, EpisodeFailure)]
    if failures:
        key, reason = failures[0].key, failures[0].reason
        raise WorkerError(
            f"{key.task}, seed {key.seed} failed, and its expert cannot be checked: {reason}"
        )
    played = first_returns([each for each in outcomes if isinstance(each, EpisodeResult)])
    installed = installed_versions(tuple(protocol.simulators))
    changed = differences(dict(protocol.simulators), installed, path="simulators")
    note = f" ({listed(changed)})" if changed else ""
    for task in known:
        before, now = (math.fsum(part) / len(part) for part in (pinned[task], played[task]))
        if not abs(now - before) <= TOLERANCE * abs(before):
            drifted.append(
                f"{task}: its expert scored {before:.6g} in the first {len(pinned[task])} "
                f"episodes when it was measured, and {now:.6g} now{note}"
            )
    return drifted


@dataclass(frozen=True)
class ReferenceSettings:
    """What is measured of a suite.

    Attributes:
        suite: The suite; with --check, by default all.
        tasks: Task ids or patterns, separated by commas.
        player: Measure only this one; by default both.
        episodes: Episodes of each task and player.
        seed: Chooses the episodes.
        workers: Processes; by default one a core.
        work: Folder of the runs, which are resumed where they exist.
    """

    suite: str = ALL
    tasks: Annotated[str | None, flag(metavar="PATTERN")] = None
    player: Literal["random", "expert"] | None = None
    episodes: int = EPISODES
    seed: int = 0
    workers: int = field(default_factory=available_cores)
    work: Path = Path("results/references")


def measure(settings: ReferenceSettings, *, console: Console) -> dict[str, Any]:
    """Play random actions on a suite, and the expert on each task that has one.

    The expert plays as the rules say: see :mod:`benchmarks.rules`.

    Args:
        settings: What is measured.
        console: Where progress is shown.

    Returns:
        ``protocol_hash``, ``protocol``, ``versions`` and ``tasks``: by task id and player
        (``random``, ``expert``) the mean return, its std, the number of episodes and, where that
        is fewer, of ``distinct`` ones, the share solved and the mean length; of the expert also
        ``first``, the returns that a check of it compares.

    Raises:
        BenchmarkError: What was asked for cannot be done, or none of the tasks has an expert.
        WorkerError: Episodes failed; the same command tries them again.
    """
    entry: dict[str, Any] | None = None
    suite, seed, player = settings.suite, settings.seed, settings.player
    for task in _ordered(suite, settings.tasks, player):
        for choice in _players(task, seed, player):
            folder = f"{task}-{choice.name}"
            if choice.name == "expert" and (weights := describe_policy(choice, [task])["weights"]):
                folder += f"-{weights}"  # a new expert, a new run
            console.print(f"{suite}: {folder}", highlight=False)
            run = RunSettings(
                suite,
                settings.work / folder,
                tasks=task,
                policy=choice,
                episodes=settings.episodes,
                seed=seed,
                workers=settings.workers,
                resume=True,
            )
            summary = run_benchmark(run, console=console)
            entry = merged(entry, _entry(choice.name, summary, run.output))
    assert entry is not None
    return entry


def _entry(player: str, summary: Summary, folder: Path) -> dict[str, Any]:
    """What one player's run says, in the form of :func:`measure`."""
    if summary.failures:
        failure = summary.failures[0]
        raise WorkerError(
            f"{summary.header.protocol.suite}: {len(summary.failures)} episodes of {player} "
            f"failed, expected none in a reference; the first: {failure.key.task}, seed "
            f"{failure.key.seed}: {failure.reason}"
        )
    figures = {task.task: {player: _figure(task)} for task in summary.tasks}
    if player == "expert":
        for task, returns in first_returns(tuple(read_run(folder).results.values())).items():
            figures[task][player]["first"] = returns
    protocol = _without_values(summary.header.protocol)
    return {
        "protocol_hash": protocol.hash,
        "protocol": protocol.to_json(),
        "versions": dict(summary.header.versions),
        "tasks": figures,
    }


def _without_values(protocol: Protocol) -> Protocol:
    """Without the values of rules: a change that matters to a measurement is a task's or raises
    the version."""
    return replace(protocol, rules="")


def _figure(task: TaskSummary) -> dict[str, Any]:
    repeated = task.distinct is not None and task.distinct < task.episodes
    return {
        "mean": round(task.mean, 6),
        "std": round(task.std, 6),
        "episodes": task.episodes,
        **({"distinct": task.distinct} if repeated else {}),
        "success": None if task.success is None else round(task.success, 6),
        "length": round(task.length, 3),
    }


def merged(recorded: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The recorded entry of a suite with the figures of a new one in their place.

    Raises:
        BenchmarkError: They were measured under different protocols.
    """
    if recorded is None:
        return new
    before, after = (Protocol.from_json(entry["protocol"]) for entry in (recorded, new))
    if changed := _unlike(before, after):
        raise BenchmarkError(
            f"this suite is measured under another protocol ({listed(changed)}): measure "
            "all of it, without --tasks"
        )
    tasks = {**before.tasks, **after.tasks}
    protocol = replace(after, tasks=dict(sorted(tasks.items())))
    return {
        "protocol_hash": protocol.hash,
        "protocol": protocol.to_json(),
        "versions": new["versions"],
        "tasks": {
            task: {**recorded["tasks"].get(task, {}), **new["tasks"].get(task, {})}
            for task in sorted(tasks)
        },
    }


def _unlike(before: Protocol, after: Protocol) -> list[str]:
    """Where two protocols part, but for their tasks."""
    return replace(before, tasks={}).differences(replace(after, tasks={}))


def check(suite: str | None, pattern: str | None, *, workers: int, console: Console) -> int:
    """Play the pinned episodes of the experts that were measured, and print those that drifted.

    Args:
        suite: Only this suite.
        pattern: Only these tasks; with a suite.
        workers: Processes.
        console: Where they are printed.

    Returns:
        How many drifted.
    """
    entries = {name: recorded_entry(name) for name in list_suites()}
    suites = {name: entry for name, entry in entries.items() if entry is not None}
    drifted = 0
    for name in [suite] if suite else suites:
        if name not in suites:
            raise BenchmarkError(f"{name} was not measured: expected one of {', '.join(suites)}")
        entry = suites[name]
        chosen = [task.id for task in select_tasks(name, pattern)]
        tasks = [task for task in chosen if "expert" in entry["tasks"].get(task, {})]
        lines = find_drift(entry, tasks, workers=workers)
        console.print(f"{name}: {len(tasks)} experts, {len(lines)} drifted", highlight=False)
        for line in lines:
            console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
        drifted += len(lines)
    if drifted:
        console.print(
            "if an expert or a simulator was changed on purpose, measure again, without --check",
            soft_wrap=True,
        )
    return drifted


def _players(task: str, seed: int, player: str | None) -> list[PolicyChoice]:
    """Random actions and the task's expert, or one of them."""
    random = PolicyChoice("random", seed=seed)
    expert = PolicyChoice("expert", seed=seed, deterministic=None)
    return [
        choice
        for choice in (random, *([expert] if has_expert(task) else []))
        if player in (None, choice.name)
    ]


def _ordered(suite: str, tasks: str | None, player: str | None) -> list[str]:
    """Ids of the tasks that there is something to measure of, those with an expert first."""
    chosen = [task.id for task in select_tasks(suite, tasks)]
    if player == "expert":
        chosen = [task for task in chosen if has_expert(task)]
        if not chosen:
            raise BenchmarkError(f"none of these tasks of {suite} has an expert: leave it out")
    return sorted(chosen, key=lambda task: not has_expert(task))


def measured_path(suite: str) -> Path:
    """The file of a suite's references.

    Raises:
        BenchmarkError: The suite names none.
    """
    path = get_suite(suite).references_path
    if path is None:
        raise BenchmarkError(
            f"suite {suite} names no file of reference scores: give its Suite references=Path(…)"
        )
    return path


def recorded_entry(suite: str) -> dict[str, Any] | None:
    """What is recorded of a suite; None where nothing is."""
    if get_suite(suite).references is None or not (path := measured_path(suite)).is_file():
        return None
    return cast("dict[str, Any] | None", read_json(path)["suites"].get(suite))


def measure_into_file(settings: ReferenceSettings, *, console: Console) -> None:
    """Measure task by task; each is written down at once where the protocol is the recorded one.

    Args:
        settings, console: As in :func:`measure`.

    Raises:
        BenchmarkError: As in :func:`measure`; or another protocol is recorded, and it is not all of
            the suite that is asked for.
        WorkerError: Episodes failed; the same command tries them again.
    """
    suite, tasks, player = settings.suite, settings.tasks, settings.player
    measured_path(suite)
    recorded = recorded_entry(suite)
    asked = Protocol.of_tasks(
        select_tasks(suite, tasks), episodes=settings.episodes, seed=settings.seed
    )
    unlike = recorded is not None and _unlike(
        Protocol.from_json(recorded["protocol"]), _without_values(asked)
    )
    whole = tasks is None and player is None
    if unlike and not whole:
        raise BenchmarkError(
            f"{suite} is measured under another protocol ({listed(unlike)}): measure all of it, "
            "without --tasks and --player"
        )
    entry: dict[str, Any] | None = None
    for task in _ordered(suite, tasks, player):
        new = measure(replace(settings, tasks=task), console=console)
        entry = merged(entry, new)
        if not unlike:
            _write(suite, merged(recorded_entry(suite), new), console)
    if whole and entry is not None:  # tasks that there are no longer are gone
        _write(suite, entry, console)


def _write(suite: str, entry: dict[str, Any], console: Console) -> None:
    path = measured_path(suite)
    content = read_json(path) if path.is_file() else {"suites": {}}
    content["suites"][suite] = entry
    write_json(path, content)
    console.print(f"wrote {path}", highlight=False, soft_wrap=True)
