"""What a run amounts to: one summary, as a table and as JSON.

* :class:`Summary` -- the figures; ``summary.json`` is :meth:`Summary.to_json`.
* :func:`summarise` -- from episodes to a summary.
* :func:`render` -- a summary for the terminal.
* :func:`render_cost` -- what weights of fewer bits cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks import references
from benchmarks.references import TaskReferences
from benchmarks.report.caveats import caveats
from benchmarks.report.task_summary import EXPERT_NOT_ABOVE_RANDOM, NO_REFERENCE, TaskSummary
from benchmarks.statistics import aggregates, bootstrap
from benchmarks.statistics import scores as statistics
from benchmarks.statistics.aggregates import Aggregate, Profile, TaskScores
from benchmarks.store.clips import Clip
from benchmarks.store.run_store import RunHeader
from policies.rollout.outcomes import EpisodeFailure, EpisodeResult
from policies.rollout.timing import Costs

FORMAT = 3
"""Version of ``summary.json``; its schema is in ``docs/benchmark.md``."""

_FAILURES_SHOWN = 10


@dataclass(frozen=True)
class Summary:
    """A whole run.

    Attributes:
        header: What was set out to be done.
        complete: Whether every episode of the protocol has been played.
        tasks: Tasks with at least one episode, sorted by id.
        aggregates: Averages over tasks; those of normalised scores leave flagged tasks out.
        suites: The same within each suite, by its name.
        profile: How many episodes and tasks are above each score; None when all are flagged.
        failures: Episodes that failed, sorted by task and index.
        published: Published figures for orientation, by name; other protocols.
        warnings: What a reader must know before quoting a figure.
        cost: Where the time went; None where it is not known.
        clips: Videos of episodes, by task and episode.
    """

    header: RunHeader
    complete: bool
    tasks: tuple[TaskSummary, ...]
    aggregates: tuple[Aggregate, ...]
    suites: Mapping[str, tuple[Aggregate, ...]]
    profile: Profile | None
    failures: tuple[EpisodeFailure, ...]
    published: Mapping[str, float]
    warnings: tuple[str, ...]
    cost: Costs | None = None
    clips: tuple[Clip, ...] = ()

    @property
    def unplayed(self) -> Mapping[str, int]:
        """Failed episodes of tasks of which none was played to its end, by task id."""
        played = {task.task for task in self.tasks}
        return Counter(
            failure.key.task for failure in self.failures if failure.key.task not in played
        )

    def to_json(self) -> dict[str, Any]:
        """The content of ``summary.json``; its schema is in ``docs/benchmark.md``."""
        tasks = {}
        for task in self.tasks:
            entry = asdict(task)
            tasks[entry.pop("task")] = entry
        return {
            **self.header.to_json(),
            "format": FORMAT,
            "complete": self.complete,
            "aggregates": {each.name: each.to_json() for each in self.aggregates},
            "suites": {
                suite: {each.name: each.to_json() for each in averages}
                for suite, averages in self.suites.items()
            },
            "profile": self.profile.to_json() if self.profile else None,
            "failures": [failure.to_json() for failure in self.failures],
            "flagged": [task.task for task in self.tasks if task.flag],
            "warnings": list(self.warnings),
            "published": dict(self.published),
            "cost": self.cost.to_json() if self.cost else None,
            "clips": [clip.to_json() for clip in self.clips],
            "tasks": tasks,
        }


def summarise(
    header: RunHeader,
    results: Sequence[EpisodeResult],
    failures: Sequence[EpisodeFailure] = (),
    *,
    measured: Mapping[str, TaskReferences] | None = None,
    cost: Costs | None = None,
    clips: Sequence[Clip] = (),
) -> Summary:
    """Reduce episodes to figures; their order does not matter.

    Args:
        header: Header of the run they belong to.
        results: Episodes played so far.
        failures: Episodes that failed and were not played since.
        measured: Random and expert returns by task id; None takes the packaged ones.
        cost: Where the time went.
        clips: Videos of episodes.
    """
    suite = header.protocol.suite
    measured = references.measured(suite) if measured is None else measured
    by_task: dict[str, list[EpisodeResult]] = {}
    for result in sorted(results, key=lambda result: (result.key.task, result.key.index)):
        by_task.setdefault(result.key.task, []).append(result)
    failed = Counter(failure.key.task for failure in failures)
    tasks = tuple(
        replace(
            _task_summary(task, episodes, measured.get(task, TaskReferences())),
            failed=failed[task],
        )
        for task, episodes in by_task.items()
    )
    scores = _scores(by_task, measured)
    return Summary(
        header,
        complete=len(results) == header.episodes,
        tasks=tasks,
        aggregates=aggregates.averages(*scores),
        suites=aggregates.averages_of_suites(*scores),
        profile=aggregates.profile(scores[0]),
        failures=tuple(sorted(failures, key=lambda each: (each.key.task, each.key.index))),
        published=_published(suite, tasks),
        warnings=caveats(header, tasks, failures),
        cost=cost,
        clips=tuple(clips),
    )


def _task_summary(
    task: str, episodes: Sequence[EpisodeResult], reference: TaskReferences
) -> TaskSummary:
    returns = np.array([episode.total_return for episode in episodes])
    solved = [episode.success for episode in episodes if episode.success is not None]
    random = reference.random.mean if reference.random else None
    expert = reference.expert.mean if reference.expert else None
    score, interval, flag = reference.normalise(returns), None, None
    if score is None:
        flag = NO_REFERENCE if None in (random, expert) else EXPERT_NOT_ABOVE_RANDOM
    elif bootstrap.enough([score]):
        interval = bootstrap.stratified_bootstrap([score], statistics.mean_of_tasks)
    return TaskSummary(
        task,
        episodes=len(episodes),
        mean=float(returns.mean()),
        std=float(returns.std()),
        length=float(np.mean([episode.length for episode in episodes])),
        success=float(np.mean(solved)) if solved else None,
        random=random,
        expert=expert,
        normalised=None if score is None else float(score.mean()),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        flag=flag,
        distinct=_distinct(episodes),
    )


def _distinct(episodes: Sequence[EpisodeResult]) -> int | None:
    digests = {episode.digest for episode in episodes}
    return None if None in digests else len(digests)


def _scores(
    by_task: Mapping[str, Sequence[EpisodeResult]], measured: Mapping[str, TaskReferences]
) -> tuple[TaskScores, TaskScores, TaskScores]:
    """Normalised scores of tasks that are not flagged, successes, and scores against a human.

    The last two are of the tasks that have them.
    """
    scores, successes, human = {}, {}, {}
    for task, episodes in by_task.items():
        returns = [episode.total_return for episode in episodes]
        score = measured.get(task, TaskReferences()).normalise(returns)
        if score is not None:
            scores[task] = score
        if any(episode.success is not None for episode in episodes):
            successes[task] = np.array([float(episode.success or False) for episode in episodes])
        against_human = references.human_normalised(task, returns)
        if against_human is not None:
            human[task] = against_human
    return scores, successes, human


def _published(suite: str, tasks: Sequence[TaskSummary]) -> dict[str, float]:
    jat = [references.published_normalised(task.task) for task in tasks]
    known = [score for score in jat if score is not None]
    averages = {"JAT, normalised mean over these tasks": float(np.mean(known))} if known else {}
    return {**averages, **references.published_aggregates(suite)}


def render(summary: Summary) -> RenderableType:
    """A table a task a line, the averages, and what to know before quoting them."""
    protocol, policy = summary.header.protocol, summary.header.policy
    table = Table(title=f"{policy['name']} on {protocol.suite}", title_justify="left")
    table.add_column("task", no_wrap=True)
    for column in ("random", "expert", "policy", "normalised", "success"):
        table.add_column(column, justify="right")
    for task in summary.tasks:
        table.add_row(
            task.task.removeprefix(f"{protocol.suite}-"),
            _number(task.random),
            _number(task.expert),
            _played(task),
            "flagged" if task.flag == EXPERT_NOT_ABOVE_RANDOM else _number(task.normalised),
            "-" if task.success is None else f"{task.success:.2f}",
        )
    for name, count in summary.unplayed.items():
        table.add_row(name.removeprefix(f"{protocol.suite}-"), "", "", f"{count} failed", "", "")
    averages = _averages("averages over tasks", summary.aggregates)
    more = 1 < len(summary.suites) < len(summary.tasks)  # of one task each, the lines say it
    suites = [_averages(suite, within) for suite, within in summary.suites.items() if more]
    lines = [
        f"published, another protocol: {name}: {value:.3g}"
        for name, value in summary.published.items()
    ]
    lines += [f"warning: {warning}" for warning in summary.warnings]
    if not summary.complete:
        lines.append("incomplete: some episodes are still to be played")
    failures = [_failed(summary)] if summary.failures else []
    lines.append(protocol.label)
    lines.append(f"rules {protocol.rules_label} (docs/protocol.md)")
    if summary.cost is not None:
        lines.append(
            f"{summary.cost.wall:.0f} s of playing, {summary.cost.spent.total:.0f} s summed over "
            f"processes: {summary.cost.spent.describe()}"
        )
    return Group(table, *suites, averages, *failures, *map(Text, lines))


def _played(task: TaskSummary) -> str:
    remarks = [f"{task.failed} failed"] if task.failed else []
    if task.distinct is not None and task.distinct < task.episodes:
        remarks.append(f"{task.distinct} of {task.episodes} distinct")
    return _number(task.mean) + (f" ({', '.join(remarks)})" if remarks else "")


def _averages(title: str, aggregates: Sequence[Aggregate]) -> Table:
    averages = Table(title=title, title_justify="left")
    for column in ("average", "value", "95 % interval", "tasks"):
        averages.add_column(column, justify="left" if column == "average" else "right")
    for each in aggregates:
        interval = "-" if each.low is None else f"{each.low:.3f} to {each.high:.3f}"
        averages.add_row(each.name, f"{each.value:.3f}", interval, str(each.tasks))
    return averages


def _failed(summary: Summary) -> RenderableType:
    """A table of the episodes that failed; whole tracebacks are in ``results.jsonl``."""
    table = Table(title=f"{len(summary.failures)} episodes failed", title_justify="left")
    table.add_column("task", no_wrap=True)
    table.add_column("seed", justify="right")
    table.add_column("timestep", justify="right")
    table.add_column("why")
    for failure in summary.failures[:_FAILURES_SHOWN]:
        key = failure.key
        table.add_row(key.task, str(key.seed), str(failure.length), Text(failure.reason))
    if len(summary.failures) > _FAILURES_SHOWN:
        table.add_row("…", "", "", f"and {len(summary.failures) - _FAILURES_SHOWN} more")
    return table


def render_cost(short: Summary, exact: Summary) -> RenderableType:
    """A table of the averages of the same episodes in fewer bits and in float32.

    Args:
        short: In fewer bits.
        exact: In float32, of the same protocol.
    """
    precision = str(short.header.policy["precision"])
    table = Table(title=f"what {precision} costs", title_justify="left")
    for column in ("average", "float32", precision, "difference"):
        table.add_column(column, justify="left" if column == "average" else "right")
    for one, other in zip(exact.aggregates, short.aggregates, strict=True):
        change = f"{other.value - one.value:+.3f}"
        table.add_row(one.name, f"{one.value:.3f}", f"{other.value:.3f}", change)
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
