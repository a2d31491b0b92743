"""Measure random and expert play: ``python -m benchmarks.experts --suite babyai``.

Both play the same episodes under the benchmark's own protocol; the result replaces the suite's
part of ``measured.json``, or with ``--tasks`` that of these. Interrupted, it resumes when started
again. ``--check`` plays each expert's first episodes again and fails where it drifted.

* :func:`measure` -- plays both and returns the suite's entry.
* :func:`merged` -- an entry with some tasks of another.
* :func:`check` -- whether the experts still score what is recorded.
* :data:`PINNED` -- how many episodes of each expert are kept one by one.
* :func:`pin` -- their returns.
* :func:`find_drift` -- plays them again and tells what differs.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from benchmarks.policies import PolicyChoice, describe_policy
from benchmarks.protocol import BenchmarkError, Protocol, differences, installed_versions, listed
from benchmarks.references import MEASURED_FILE
from benchmarks.report.summary import Summary, TaskSummary
from benchmarks.run import run_benchmark, select_tasks
from benchmarks.settings import RunSettings
from benchmarks.workers.common import WorkerError
from benchmarks.workers.processes import play_episodes
from gato_gym.listing import PROGRAMS, task_rows
from policies.rollout.outcomes import EpisodeFailure, EpisodeResult
from policies.rollout.timing import TimeSpent

PINNED = 3
"""Episodes of each expert whose returns are kept: the first ones of the measurement."""


TOLERANCE = 0.02
"""Share of the pinned mean by which an expert may differ."""


def pin(protocol: Protocol, tasks: Sequence[str], *, workers: int) -> dict[str, list[float]]:
    """The expert's returns in the first :data:`PINNED` episodes of some tasks.

    Args:
        protocol: Whose episodes.
        tasks: Task ids of the protocol, each with an expert.
        workers: Processes.

    Raises:
        BenchmarkError: A task or its expert cannot be made.
        WorkerError: A worker process or an episode failed.
    """
    first = dataclasses.replace(protocol, episodes=min(PINNED, protocol.episodes))
    pending = {task: first.episodes_of(task) for task in tasks}
    choice = PolicyChoice("expert", seed=protocol.seed, deterministic=None)
    with closing(play_episodes(pending, choice, workers=workers)) as played:
        results = [report for report in played if not isinstance(report, TimeSpent)]
    for result in results:
        if isinstance(result, EpisodeFailure):
            raise WorkerError(
                f"{result.key.task}, seed {result.key.seed} failed, and its expert cannot be "
                f"checked: {result.reason}"
            )
    return first_returns([each for each in results if isinstance(each, EpisodeResult)])


def first_returns(results: Sequence[EpisodeResult]) -> dict[str, list[float]]:
    """Returns of the first :data:`PINNED` episodes, by task, in the order of their numbers."""
    ordered = sorted(results, key=lambda result: (result.key.task, result.key.index))
    returns: dict[str, list[float]] = {}
    for result in ordered:
        if result.key.index < PINNED:
            returns.setdefault(result.key.task, []).append(round(result.total_return, 6))
    return returns


def find_drift(entry: Mapping[str, Any], tasks: Sequence[str], *, workers: int) -> list[str]:
    """Experts that no longer score what they did, a line each.

    Args:
        entry: A suite's part of ``measured.json``.
        tasks: Task ids; those without pinned episodes are told of too.
        workers: Processes.

    Raises:
        BenchmarkError: A task or its expert cannot be made.
        WorkerError: A worker process failed.
    """
    protocol = Protocol.from_json(entry["protocol"])
    pinned = {task: entry["tasks"].get(task, {}).get("expert", {}).get("first") for task in tasks}
    drifted = [
        f"{task}: no pinned episodes of its expert are recorded, expected {PINNED}"
        for task, returns in pinned.items()
        if not returns
    ]
    known = [task for task, returns in pinned.items() if returns]
    played = pin(protocol, known, workers=workers)
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


EPISODES = 100
"""Of each task and player; beside each recorded figure stands how many it is of."""


def measure(
    suite: str,
    *,
    episodes: int,
    seed: int,
    workers: int,
    work: Path,
    console: Console,
    tasks: str | None = None,
) -> dict[str, Any]:
    """Play random actions on a suite, and the expert on each task that has one.

    The expert plays as the rules say: see :mod:`benchmarks.rules`.

    Args:
        suite: Suite name.
        episodes: Episodes of each task and player.
        seed: What the episodes' seeds are derived from.
        workers: Processes.
        work: Folder for the runs' records, resumed where they exist.
        console: Where progress is shown.
        tasks: Pattern of task ids; None means the whole suite.

    Returns:
        ``protocol_hash``, ``protocol``, ``versions`` and ``tasks``: by task id and player
        (``random``, ``expert``) the mean return, its std, the number of episodes, the share
        solved and the mean length; of the expert also ``first``, the returns that a check of it
        compares.

    Raises:
        BenchmarkError: What was asked for cannot be done.
        WorkerError: Episodes failed; the same command tries them again.
    """
    played: list[tuple[str, Summary]] = []
    first: dict[str, list[float]] = {}
    for run in _runs(suite, seed, tasks):
        console.print(f"{suite}: {run.folder}", highlight=False)
        settings = RunSettings(
            suite,
            work / run.folder,
            tasks=run.tasks,
            policy=run.policy,
            episodes=episodes,
            seed=seed,
            workers=workers,
            resume=True,
        )
        summary = run_benchmark(settings, console=console)
        _refuse_failures(suite, run.policy.name, summary)
        played.append((run.policy.name, summary))
        if run.policy.name == "expert":
            first |= first_returns(_recorded(settings.output))
    header = played[0][1].header
    rules = {task: rule for _, one in played for task, rule in one.header.protocol.tasks.items()}
    # Without the rules in words: another wording asks for no new measurement.
    protocol = replace(header.protocol, tasks=dict(sorted(rules.items())), rules="")
    figures: dict[str, dict[str, Any]] = {task: {} for task in protocol.tasks}
    for player, summary in played:
        for task in summary.tasks:
            figures[task.task][player] = _figure(task)
            if player == "expert":
                figures[task.task][player]["first"] = first[task.task]
    return {
        "protocol_hash": protocol.hash,
        "protocol": protocol.to_json(),
        "versions": dict(header.versions),
        "tasks": figures,
    }


def _refuse_failures(suite: str, player: str, summary: Summary) -> None:
    if summary.failures:
        failure = summary.failures[0]
        raise WorkerError(
            f"{suite}: {len(summary.failures)} episodes of {player} failed, expected none in a "
            f"reference; the first: {failure.key.task}, seed {failure.key.seed}: {failure.reason}"
        )


def _figure(task: TaskSummary) -> dict[str, Any]:
    return {
        "mean": round(task.mean, 6),
        "std": round(task.std, 6),
        "episodes": task.episodes,
        "success": None if task.success is None else round(task.success, 6),
        "length": round(task.length, 3),
    }


def _recorded(folder: Path) -> list[EpisodeResult]:
    lines = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return [EpisodeResult.from_json(line) for line in lines if "error" not in line]


def merged(recorded: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The recorded entry of a suite with the tasks of a new one in their place.

    Raises:
        BenchmarkError: They were measured under different protocols.
    """
    if recorded is None:
        return new
    before, after = (dict(entry["protocol"]) for entry in (recorded, new))
    tasks = {**before.pop("tasks"), **after.pop("tasks")}
    if changed := differences(before, after):
        raise BenchmarkError(
            f"{MEASURED_FILE} has this suite under another protocol ({listed(changed)}): measure "
            "all of it, without --tasks"
        )
    protocol = Protocol.from_json({**after, "tasks": dict(sorted(tasks.items()))})
    return {
        "protocol_hash": protocol.hash,
        "protocol": protocol.to_json(),
        "versions": new["versions"],
        "tasks": dict(sorted({**recorded["tasks"], **new["tasks"]}.items())),
    }


def check(suite: str | None, pattern: str | None, *, workers: int, console: Console) -> int:
    """Play the pinned episodes of the experts that were measured, and print those that drifted.

    Args:
        suite: Only this suite.
        pattern: Only these tasks; with a suite.
        workers: Processes.
        console: Where it is told.

    Returns:
        How many drifted.
    """
    suites = measured_content()["suites"]
    drifted = 0
    for name in [suite] if suite else sorted(suites):
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


@dataclass(frozen=True)
class _Run:
    """Tasks that one player plays, and the name of their record's folder."""

    folder: str
    policy: PolicyChoice
    tasks: str | None = None


def _runs(suite: str, seed: int, tasks: str | None) -> list[_Run]:
    """Random actions first; trained experts one by one, so that a new one adds a run of its own."""
    expert = PolicyChoice("expert", seed=seed, deterministic=None)
    random = PolicyChoice("random", seed=seed)
    if tasks is None:
        chosen = None
        runs = [_Run(f"{suite}-random", random)]
    else:
        chosen = {task.id for task in select_tasks(suite, tasks)}
        runs = [_Run(f"{task}-random", random, task) for task in sorted(chosen)]
    rows = [
        row
        for row in task_rows(suite)
        if row.expert is not None and (chosen is None or row.id in chosen)
    ]
    if suite in PROGRAMS and chosen is None:
        return [*runs, _Run(f"{suite}-expert", expert)]
    for row in rows:
        weights = describe_policy(expert, [row.id])["weights"]
        name = f"{row.id}-expert-{weights}" if weights else f"{row.id}-expert"
        runs.append(_Run(name, expert, row.id))
    return runs


def measured_path() -> Path:
    return Path(str(resources.files("benchmarks.references").joinpath(MEASURED_FILE)))


def measured_content() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(measured_path().read_text()))
