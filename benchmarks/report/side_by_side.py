"""Several policies on the same episodes, side by side.

* :func:`read_beside` -- from the folders of their runs to a :class:`Beside`.
* :func:`render` -- for the terminal; :func:`render_page` -- as one self-contained page.
* :func:`write` -- ``comparison.json`` and ``comparison.html``; what ``benchmarks.run`` calls.

Averages are over the tasks that all of them played. Each pair is compared as
``benchmarks.compare`` does, in pairs of episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.protocol import BenchmarkError, Protocol, listed
from benchmarks.report.compare import Comparison, compare
from benchmarks.report.html import asset, template_of
from benchmarks.report.summary import Summary, summarise
from benchmarks.report.task_summary import TaskSummary
from benchmarks.statistics.aggregates import Aggregate
from benchmarks.store.run_store import RecordedRun, read_run
from gato_gym.files.atomic_io import write_json, write_whole

FORMAT = 2
"""Version of ``comparison.json``."""

PAGE, FIGURES = "comparison.html", "comparison.json"


@dataclass(frozen=True)
class Side:
    """One policy: its folder's name, its whole run, and averages over the tasks of all policies."""

    name: str
    summary: Summary
    averages: dict[str, Aggregate]


@dataclass(frozen=True)
class Row:
    """One task: each policy's figures, None where it has played no episode, and why it has not."""

    task: str
    figures: tuple[TaskSummary | None, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Beside:
    """Several policies side by side.

    Attributes:
        protocol: The protocol of all.
        sides: The policies, in the order in which they were named.
        rows: The protocol's tasks.
        common: Ids of the tasks that all of them played.
        pairs: Each pair's names and comparison, the second less the first.
        notes: What a reader must know.
    """

    protocol: Protocol
    sides: tuple[Side, ...]
    rows: tuple[Row, ...]
    common: tuple[str, ...]
    pairs: tuple[tuple[str, str, Comparison], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        return {
            "format": FORMAT,
            "protocol_hash": self.protocol.hash,
            "protocol": self.protocol.to_json(),
            "policies": [
                {
                    "name": side.name,
                    "policy": dict(side.summary.header.policy),
                    "left_out": dict(side.summary.header.left_out),
                    "averages": {each.name: each.to_json() for each in side.averages.values()},
                }
                for side in self.sides
            ],
            "common": list(self.common),
            "pairs": [{**pair.to_json(), "a": a, "b": b} for a, b, pair in self.pairs],
            "notes": list(self.notes),
        }


def read_beside(folders: Sequence[Path]) -> Beside:
    """Put recorded runs side by side.

    Args:
        folders: Folders of two or more runs of one protocol.

    Raises:
        BenchmarkError: A folder holds no run, or their protocols differ.
    """
    runs = [read_run(folder) for folder in folders]
    protocol = runs[0].header.protocol
    for run in runs[1:]:
        unlike = protocol.differences(run.header.protocol)
        if unlike:
            raise BenchmarkError(
                f"{runs[0].folder} and {run.folder} were played under different protocols "
                f"({listed(unlike)}): play one of them again"
            )
    played = [{key.task for key in run.results} for run in runs]
    common = tuple(task for task in protocol.tasks if all(task in of for of in played))
    sides = tuple(_side(run, common) for run in runs)
    tasks = [{task.task: task for task in side.summary.tasks} for side in sides]
    rows = tuple(
        Row(
            task,
            tuple(of.get(task) for of in tasks),
            tuple(
                run.header.left_out.get(task, "no episode was played to its end") for run in runs
            ),
        )
        for task in protocol.tasks
    )
    pairs, notes = [], []
    for (one, a), (other, b) in combinations(zip(sides, runs, strict=True), 2):
        try:
            pairs.append((one.name, other.name, compare(a, b)))
        except BenchmarkError:  # of the same protocol, it can only be that
            notes.append(f"{one.name} and {other.name} have no task in common")
    for side in sides:
        notes += [f"{side.name}: {warning}" for warning in side.summary.warnings]
    return Beside(protocol, sides, rows, common, tuple(pairs), tuple(notes))


def _side(run: RecordedRun, common: Sequence[str]) -> Side:
    results, failures = tuple(run.results.values()), tuple(run.failures.values())
    shared = tuple(result for result in results if result.key.task in common)
    averages = summarise(run.header, shared).aggregates if shared else ()
    summary = summarise(run.header, results, failures)
    return Side(run.folder.name, summary, {each.name: each for each in averages})


def write(output: Path, folders: Sequence[Path]) -> RenderableType:
    """Write ``comparison.json`` and ``comparison.html``; for the terminal, what is in them.

    Raises:
        BenchmarkError: As :func:`read_beside`; or they cannot be written.
    """
    comparison = read_beside(folders)
    try:
        write_json(output / FIGURES, comparison.to_json())
        write_whole(output / PAGE, render_page(comparison))
    except OSError as error:
        raise BenchmarkError(
            f"{output} cannot be written to ({error}): make room, then resume"
        ) from error
    return render(comparison)


def render_page(beside: Beside) -> str:
    """One page that loads nothing, as HTML."""
    return template_of("comparison.html.j2").render(
        beside=beside, style=asset("report.css"), names=_average_names(beside)
    )


def render(beside: Beside) -> RenderableType:
    """Tasks with each policy's normalised score, averages, and each pair of policies."""
    protocol, names = beside.protocol, [side.name for side in beside.sides]
    table = _table(f"side by side on {protocol.suite}: normalised scores", "task", *names)
    title = f"averages over the {len(beside.common)} tasks that all played"
    averages = _table(title, "average", *names)
    for row in beside.rows:
        table.add_row(row.task.removeprefix(f"{protocol.suite}-"), *map(_cell, row.figures))
    for name in _average_names(beside):
        averages.add_row(name, *(_average(side.averages.get(name)) for side in beside.sides))
    lines = [f"note: {note}" for note in beside.notes]
    lines.append(f"{protocol.label}, rules {protocol.rules_label}")
    return Group(table, averages, _pairs(beside), *map(Text, lines))


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _pairs(beside: Beside) -> RenderableType:
    columns = ("probability of improvement", "normalised mean, B − A", "worse", "better")
    table = _table("each pair, in pairs of episodes", "B over A", *columns)
    for a, b, pair in beside.pairs:
        mean = next((each for each in pair.averages if each.name == "normalised mean"), None)
        verdicts = [task.verdict for task in pair.tasks]
        table.add_row(
            f"{b} over {a}",
            "–" if pair.improvement is None else _figure(*pair.improvement),
            "–" if mean is None else _figure(mean.difference, mean.low, mean.high, "+"),
            *(str(verdicts.count(verdict)) for verdict in ("worse", "better")),
        )
    return table


def _average_names(beside: Beside) -> list[str]:
    return list(dict.fromkeys(name for side in beside.sides for name in side.averages))


def _cell(task: TaskSummary | None) -> str:
    if task is None:
        return "not played"
    if task.normalised is None:
        return f"return {task.mean:.6g}"
    return f"{task.normalised:.2f}"


def _average(each: Aggregate | None) -> str:
    return "–" if each is None else _figure(each.value, each.low, each.high)


def _figure(value: float, low: float | None, high: float | None, sign: str = "") -> str:
    interval = "" if low is None else f" ({low:{sign}.3f} to {high:{sign}.3f})"
    return f"{value:{sign}.3f}{interval}"
