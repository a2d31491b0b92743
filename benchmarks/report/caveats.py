"""What a reader must know before quoting a run's figures.

* :func:`caveats` -- the sentences, in the table, in ``summary.json`` and on the page.
* :data:`DISTINCT_SHARE` -- how few distinct episodes are too few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from benchmarks import references
from benchmarks.protocol import STANDARD, differences, listed
from benchmarks.report.task_summary import EXPERT_NOT_ABOVE_RANDOM, NO_REFERENCE, TaskSummary
from benchmarks.statistics.aggregates import suite_of
from benchmarks.statistics.bootstrap import FEWEST
from benchmarks.store.run_store import RunHeader
from policies.rollout.outcomes import EpisodeFailure

DISTINCT_SHARE = 0.1
"""Share of episodes that are distinct, below which a summary warns."""


def caveats(
    header: RunHeader, tasks: Sequence[TaskSummary], failures: Sequence[EpisodeFailure]
) -> tuple[str, ...]:
    """A sentence for each thing to know.

    Args:
        header: The run's header.
        tasks: Its figures.
        failures: Episodes that failed and were not played since.
    """
    warnings = _left_out(header)
    if failures:
        where = ", ".join(sorted({failure.key.task for failure in failures}))
        warnings.append(
            f"{len(failures)} episodes failed and are in no figure, which may be better or worse "
            f"for it: {where}"
        )
    warnings += _repeated(tasks) + _few(tasks)
    for flag in (EXPERT_NOT_ABOVE_RANDOM, NO_REFERENCE):
        flagged = [task.task for task in tasks if task.flag == flag]
        if flagged:
            warnings.append(f"left out of normalised averages ({flag}): {', '.join(flagged)}")
    if header.protocol.name != STANDARD:
        warnings.append(
            f"random and expert were measured under the {STANDARD} protocol: the returns are those "
            f"of {header.protocol.name}, scores normalised by these references are not"
        )
    played = header.protocol.tasks.keys() - header.left_out.keys()
    for suite in sorted({*map(suite_of, played)}):
        changed = _changed_since_measured(suite, header)
        if changed:
            warnings.append(
                f"random and expert were measured under other rules ({listed(changed)}): measure "
                f"them again with python -m benchmarks.experts --suite {suite}"
            )
    return tuple(warnings)


def _repeated(tasks: Sequence[TaskSummary]) -> list[str]:
    """The tasks whose figures rest on hardly any distinct episodes."""
    few = [
        f"{task.task} {task.distinct} of {task.episodes}"
        for task in tasks
        if task.distinct is not None and task.distinct < DISTINCT_SHARE * task.episodes
    ]
    if not few:
        return []
    return [
        "fewer than a tenth of the episodes are distinct, the others repeat them, and intervals "
        f"are far too narrow: {', '.join(few)}"
    ]


def _few(tasks: Sequence[TaskSummary]) -> list[str]:
    few = [task.task for task in tasks if task.episodes < FEWEST]
    if not few:
        return []
    return [
        f"no intervals, which take {FEWEST} episodes of each task, for these and for "
        f"averages over them: {listed(few)}"
    ]


def _left_out(header: RunHeader) -> list[str]:
    """The tasks that the policy cannot play, a sentence for each suite and reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for task, why in header.left_out.items():
        by_reason.setdefault((suite_of(task), why), []).append(task)
    return [
        f"not played, {len(tasks)} of {suite}'s tasks ({why}): {listed(tasks)}"
        for (suite, why), tasks in by_reason.items()
    ]


def _changed_since_measured(suite: str, header: RunHeader) -> list[str]:
    measured, protocol = references.measured_protocol(suite), header.protocol
    if measured is None:
        return []
    simulators = {
        name: version
        for name, version in protocol.simulators.items()
        if name in measured.simulators  # of several suites, those of the others are there too
    }
    changed = differences(measured.simulators, simulators, path="simulators")
    for task, rules in protocol.tasks.items():
        if task in measured.tasks:
            expected = rules.with_disturbance(measured.tasks[task].disturbance)  # has its own line
            changed += differences(asdict(measured.tasks[task]), asdict(expected), path=task)
    return changed
