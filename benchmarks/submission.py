"""A finished run as one JSON object: what is published beside a network, or on the leaderboard.

* :func:`evaluation_of` -- a run's figures, computed anew from its episodes.
* :func:`find_faults` -- why a run cannot be on the leaderboard.
* :func:`submission_of` -- the evaluation of a run that can.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import references
from benchmarks.protocol import ALL, STANDARD, BenchmarkError, Protocol, listed
from benchmarks.report.summary import Summary, summarise
from benchmarks.store.run_store import RecordedRun, read_run
from gato_gym.tasks import list_suites, list_tasks

FORMAT = 1
"""Version of the JSON object; its schema is in ``docs/benchmark.md``."""

FEWEST_EPISODES, SEED = 20, 0
"""What a run on the leaderboard has: so many episodes of each task at least, and this seed."""

KEPT = ("policy", "protocol_hash", "protocol", "versions", "left_out", "aggregates", "suites")


def _summary(run: RecordedRun) -> Summary:
    return summarise(run.header, tuple(run.results.values()), tuple(run.failures.values()))


def evaluation_of(folder: Path) -> dict[str, Any]:
    """The figures of a run's folder: averages and tasks with their intervals, and the protocol.

    Raises:
        BenchmarkError: The folder holds no run, or one without an episode.
    """
    run = read_run(folder)
    if not run.results:
        raise BenchmarkError(f"{folder} holds no finished episode: finish it with --resume")
    summary = _summary(run).to_json()
    return {"format": FORMAT, **{name: summary[name] for name in KEPT}, "tasks": summary["tasks"]}


def find_faults(run: RecordedRun) -> list[str]:
    """Why a run cannot be on the leaderboard, a line each; empty where it can.

    Its episodes' seeds were compared with its protocol's when it was read.
    """
    header, protocol = run.header, run.header.protocol
    if protocol.suite not in (ALL, *list_suites()):
        return [f"suite {protocol.suite} is not registered here: install the package that has it"]
    faults = []
    if len(run.results) < header.episodes:
        failed = f", {len(run.failures)} of which failed" if run.failures else ""
        missing = header.episodes - len(run.results)
        faults.append(f"{missing} of {header.episodes} episodes are missing{failed}: --resume it")
    if protocol.episodes < FEWEST_EPISODES:
        faults.append(
            f"{protocol.episodes} episodes a task, expected {FEWEST_EPISODES} or more: run it "
            f"with --episodes {FEWEST_EPISODES}"
        )
    if protocol.name != STANDARD:
        faults.append(f"protocol {protocol.name}, expected {STANDARD}: run it without --protocol")
    if protocol.seed != SEED:
        faults.append(f"seed {protocol.seed}, expected {SEED}: run it with --seed {SEED}")
    suites = list_suites() if protocol.suite == ALL else (protocol.suite,)
    measured = [each for each in map(references.measured_protocol, suites) if each is not None]
    if not measured:
        return [*faults, f"{protocol.suite} has no reference scores: measure them first"]
    expected = replace(
        Protocol.of_tasks(
            list_tasks(None if protocol.suite == ALL else protocol.suite),
            episodes=protocol.episodes,
            seed=protocol.seed,
            name=protocol.name,
        ),
        simulators={
            package: version for each in measured for package, version in each.simulators.items()
        },
    )
    sides = ("this run", "the whole suite")
    return faults + expected.differences(protocol, sides=sides[::-1])


def submission_of(folder: Path) -> dict[str, Any]:
    """The evaluation of a run that may be on the leaderboard.

    Raises:
        BenchmarkError: It may not, or the folder holds no run; says everything that is wrong.
    """
    faults = find_faults(read_run(folder))
    if faults:
        raise BenchmarkError(f"{folder} cannot be on the leaderboard: {listed(faults, most=8)}")
    return evaluation_of(folder)
