"""What changed from one run to another: ``python -m benchmarks.compare A B``.

* :func:`compare` -- from two recorded runs to a :class:`Comparison`.
* :class:`TaskDifference`, :class:`AverageDifference` -- its lines, each a :class:`Difference`.
* :func:`render` -- for the terminal, regressions first.

Every difference is B's figure less A's. Runs of one protocol play the same episodes, so episodes
are compared in pairs: what makes one hard for both does not blur the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks import references
from benchmarks.protocol import BenchmarkError, differences, listed
from benchmarks.references import TaskReferences
from benchmarks.statistics import bootstrap
from benchmarks.statistics import scores as statistics
from benchmarks.statistics.aggregates import suite_of
from benchmarks.statistics.scores import Average, Sample
from benchmarks.store.run_store import RecordedRun
from policies.rollout.outcomes import EpisodeKey, EpisodeResult

FORMAT = 2
"""Version of the file that ``--output`` writes."""

_AVERAGES: tuple[tuple[str, Average], ...] = (
    ("normalised mean", statistics.mean_of_tasks),
    ("normalised median", statistics.median_of_tasks),
    ("normalised IQM", statistics.interquartile_mean),
    ("optimality gap", statistics.optimality_gap),
)


@dataclass(frozen=True)
class Difference:
    """A figure of both runs: ``difference`` is ``b - a``, ``low`` to ``high`` its 95 % interval.

    The ends are None with fewer than :data:`benchmarks.statistics.bootstrap.FEWEST` episodes, of
    which nothing can be said.
    """

    a: float
    b: float
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class TaskDifference(Difference):
    """One task.

    Attributes:
        task: Task id.
        normalised: Whether the figures are normalised scores; else returns, of a task that
            cannot be normalised.
        episodes: Pairs of episodes; without pairs, the fewer of the two.
    """

    task: str
    normalised: bool
    episodes: int

    @property
    def verdict(self) -> str:
        """``worse`` or ``better`` where the interval does not hold 0, else nothing."""
        if self.low is None or self.high is None:
            return ""
        return "worse" if self.high < 0 else "better" if self.low > 0 else ""


@dataclass(frozen=True)
class AverageDifference(Difference):
    """An average over so many tasks."""

    name: str
    tasks: int


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        a: Folder of the one.
        b: Folder of the other.
        players: What was scored in each.
        paired: Whether episodes were compared in pairs.
        tasks: The tasks of both, those that are worse first, then by difference; those in
            returns at the end.
        averages: Averages over tasks that can be normalised, and ``success``.
        improvement: The probability that an episode of B scores above one of A of the same task,
            and its 95 % interval, None with too few episodes; None without normalised tasks.
        unlike: Where the protocols part; empty unless forced.
        notes: What a reader must know.
    """

    a: str
    b: str
    players: tuple[str, str]
    paired: bool
    tasks: tuple[TaskDifference, ...]
    averages: tuple[AverageDifference, ...]
    improvement: tuple[float, float | None, float | None] | None
    unlike: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it, by attribute."""
        return {"format": FORMAT, **asdict(self)}


Episodes = dict[str, tuple[list[EpisodeResult], list[EpisodeResult]]]
"""A's and B's episodes of each task of both."""


def compare(a: RecordedRun, b: RecordedRun, *, force: bool = False) -> Comparison:
    """Compare two runs.

    Args:
        a: What is compared with.
        b: What is compared.
        force: Also if their protocols differ.

    Raises:
        BenchmarkError: The protocols differ, or no task is in both.
    """
    unlike = a.header.protocol.differences(b.header.protocol, sides=("A", "B"))
    if unlike and not force:
        raise BenchmarkError(
            f"{a.folder} and {b.folder} were played under different protocols "
            f"({listed(unlike)}): play one of them again, or pass --force to compare anyway"
        )
    episodes, paired = _matched(a, b)
    if not episodes:
        raise BenchmarkError(
            f"{a.folder} and {b.folder} have no task with episodes in common, expected at least "
            "one: compare runs of the same tasks"
        )
    tasks, normalised = [], []
    for task, both in episodes.items():
        returns = _both(both, lambda each: each.total_return)
        reference = references.measured(suite_of(task)).get(task, TaskReferences())
        one, other = (reference.normalise(each) for each in returns)
        scores = None if one is None or other is None else (one, other)
        if scores is not None:
            normalised.append(scores)
        tasks.append(
            TaskDifference(
                *_difference([scores or returns], statistics.mean_of_tasks, paired=paired),
                task=task,
                normalised=scores is not None,
                episodes=min(map(len, returns)),
            )
        )
    return Comparison(
        str(a.folder),
        str(b.folder),
        players=_players(a, b),
        paired=paired,
        tasks=tuple(sorted(tasks, key=_regressions_first)),
        averages=_averages(normalised, _successes(episodes), paired=paired),
        improvement=_improvement(normalised, paired=paired),
        unlike=tuple(unlike),
        notes=_notes(a, b, episodes, paired=paired),
    )


def _regressions_first(task: TaskDifference) -> tuple[bool, bool, float]:
    return not task.normalised, task.verdict != "worse", task.difference


def _matched(a: RecordedRun, b: RecordedRun) -> tuple[Episodes, bool]:
    """Episodes to compare; only those of both where there are any, else all that each has."""

    def by_task(run: RecordedRun) -> dict[str, dict[EpisodeKey, EpisodeResult]]:
        results: dict[str, dict[EpisodeKey, EpisodeResult]] = {}
        for key in sorted(run.results, key=lambda key: (key.task, key.index)):
            results.setdefault(key.task, {})[key] = run.results[key]
        return results

    ours, theirs = by_task(a), by_task(b)
    tasks = [task for task in ours if task in theirs]
    common = {task: [key for key in ours[task] if key in theirs[task]] for task in tasks}
    if any(common.values()):
        pairs = {
            task: ([ours[task][key] for key in keys], [theirs[task][key] for key in keys])
            for task, keys in common.items()
            if keys
        }
        return pairs, True
    return {task: (list(ours[task].values()), list(theirs[task].values())) for task in tasks}, False


Pair = tuple[NDArray[np.float64], NDArray[np.float64]]
"""A figure of A's episodes and of B's, float64 ``[episodes]`` each."""


def _both(
    episodes: tuple[Sequence[EpisodeResult], Sequence[EpisodeResult]],
    figure: Callable[[EpisodeResult], float],
) -> Pair:
    one, other = (np.array([figure(each) for each in of], dtype=np.float64) for of in episodes)
    return one, other


def _successes(episodes: Episodes) -> list[Pair]:
    return [
        _both(both, lambda each: float(each.success or False))
        for both in episodes.values()
        if all(each.success is not None for of in both for each in of)
    ]


def _averages(
    scores: Sequence[Pair], successes: Sequence[Pair], *, paired: bool
) -> tuple[AverageDifference, ...]:
    averages = [(*each, scores) for each in _AVERAGES]
    averages.append(("success", statistics.mean_of_tasks, successes))
    return tuple(
        AverageDifference(*_difference(of, average, paired=paired), name=name, tasks=len(of))
        for name, average, of in averages
        if of
    )


def _difference(
    pairs: Sequence[Pair], average: Average, *, paired: bool
) -> tuple[float, float, float, float | None, float | None]:
    """The fields of a :class:`Difference` of an average over tasks."""
    a, b = _samples(pairs)
    one, other = float(average(a)), float(average(b))
    ends = _interval(a, b, bootstrap.difference_of(average), paired=paired)
    return one, other, other - one, *ends


def _samples(pairs: Sequence[Pair]) -> tuple[Sample, Sample]:
    a, b = (Sample.of([pair[side] for pair in pairs]) for side in (0, 1))
    return a, b


def _interval(
    a: Sample, b: Sample, figure: bootstrap.PairFigure, *, paired: bool
) -> tuple[float | None, float | None]:
    """The interval of a figure of B and A; None twice with too few episodes."""
    if not (bootstrap.enough(a) and bootstrap.enough(b)):
        return None, None
    interval = bootstrap.interval_of(bootstrap.paired_replicates(b, a, figure, paired=paired))
    return interval.low, interval.high


def _improvement(
    scores: Sequence[Pair], *, paired: bool
) -> tuple[float, float | None, float | None] | None:
    if not scores:
        return None
    a, b = _samples(scores)
    figure = statistics.probability_of_improvement
    return float(figure(b, a)), *_interval(a, b, figure, paired=paired)


def _players(a: RecordedRun, b: RecordedRun) -> tuple[str, str]:
    """What was scored in each: name and weights, and whatever else of them differs."""
    policies = [dict(run.header.policy) for run in (a, b)]
    shown = {"name", "weights"}
    others = sorted({*policies[0], *policies[1]} - shown)
    unlike = [name for name in others if policies[0].get(name) != policies[1].get(name)]

    def label(policy: dict[str, Any]) -> str:
        weights = f" ({policy['weights']})" if policy.get("weights") else ""
        settings = (f", {name.replace('_', ' ')} {policy.get(name)}" for name in unlike)
        return f"{policy.get('name', '?')}{weights}{''.join(settings)}"

    return label(policies[0]), label(policies[1])


def _notes(a: RecordedRun, b: RecordedRun, episodes: Episodes, *, paired: bool) -> tuple[str, ...]:
    notes = []
    for name, run in (("A", a), ("B", b)):
        missing = run.header.episodes - len(run.results) - len(run.failures)
        if missing:
            notes.append(f"{name} is incomplete: {missing} episodes are still to be played")
        if run.failures:
            tasks = sorted({key.task for key in run.failures})
            notes.append(f"{name}: {len(run.failures)} episodes failed, of {', '.join(tasks)}")
    few = [task for task, both in episodes.items() if min(map(len, both)) < bootstrap.FEWEST]
    if few:
        notes.append(
            f"no intervals and no verdicts, which take {bootstrap.FEWEST} episodes of each task, "
            f"for these and for averages over them: {listed(few)}"
        )
    if not paired:
        notes.append("the two have no episode in common: intervals are of unpaired episodes")
    left_out = {key.task for run in (a, b) for key in run.results} - set(episodes)
    if left_out:
        notes.append(f"{len(left_out)} tasks are not in both: {listed(sorted(left_out))}")
    others = differences(
        dict(a.header.versions), dict(b.header.versions), path="versions", sides=("A", "B")
    )
    if others:
        notes.append(f"versions differ: {listed(others)}")
    return tuple(notes)


def render(comparison: Comparison) -> RenderableType:
    """Tasks, regressions first; averages; and what to know before quoting them."""
    table = Table(title=f"B − A: {' against '.join(comparison.players[::-1])}")
    table.title_justify = "left"
    table.add_column("task", no_wrap=True)
    suites = {suite_of(task.task) for task in comparison.tasks}
    prefix = f"{suites.pop()}-" if len(suites) == 1 else ""
    for column in ("A", "B", "difference", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for task in comparison.tasks:
        style = {"worse": "red", "better": "green"}.get(task.verdict, "")
        unit = "" if task.normalised else "in returns"
        verdict = Text(" ".join(filter(None, (task.verdict, unit))), style=style)
        table.add_row(task.task.removeprefix(prefix), *_figures(task), verdict)
    averages = Table(title="averages over tasks", title_justify="left")
    for column in ("average", "A", "B", "difference", "95 % interval", "tasks"):
        averages.add_column(column, justify="left" if column == "average" else "right")
    for average in comparison.averages:
        averages.add_row(average.name, *_figures(average), str(average.tasks))
    lines = []
    if comparison.improvement is not None:
        value, low, high = comparison.improvement
        interval = "" if low is None else f", 95 % interval {low:.3f} to {high:.3f}"
        lines.append(f"probability of improvement, B over A: {value:.3f}{interval} (0.5: neither)")
    worse, better = (
        sum(task.verdict == verdict for task in comparison.tasks) for verdict in ("worse", "better")
    )
    lines.append(
        f"{worse} tasks worse, {better} better, by intervals of one task each: of "
        f"{len(comparison.tasks)} tasks about {0.05 * len(comparison.tasks):.0f} would be one or "
        "the other by chance"
    )
    if comparison.unlike:
        lines.append(f"warning: different protocols: {listed(comparison.unlike)}")
    lines += [f"note: {note}" for note in comparison.notes]
    return Group(table, averages, *map(Text, lines))


def _figures(line: Difference) -> tuple[str, ...]:
    digits = 3 if max(abs(line.a), abs(line.b)) < 100 else 0
    return (
        f"{line.a:.{digits}f}",
        f"{line.b:.{digits}f}",
        f"{line.difference:+.{digits}f}",
        "-" if line.low is None else f"{line.low:+.{digits}f} to {line.high:+.{digits}f}",
    )
