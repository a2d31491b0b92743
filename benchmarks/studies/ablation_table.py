"""The table of an ablation.

* :func:`write_table` -- as CSV, and between two comments of a page.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics.aggregates import suite_of
from benchmarks.statistics.bootstrap import stratified_bootstrap
from benchmarks.statistics.scores import mean_of_tasks

BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"
COLUMNS = (
    "variant", "what", "steps", "parameters", "accuracy", "error",
    "babyai", "babyai_low", "babyai_high", "metaworld", "metaworld_low", "metaworld_high",
)  # fmt: skip

Result = Mapping[str, Any]


def successes(result: Result, suite: str) -> list[NDArray[np.float64]]:
    """Success of each episode, an array a task: float64 ``[episodes]``, 0 or 1."""
    by_task: dict[str, list[float]] = {}
    for episode in result["episodes"]:
        if suite_of(episode["task"]) == suite:
            by_task.setdefault(episode["task"], []).append(float(episode["success"]))
    return [np.array(values) for _, values in sorted(by_task.items())]


def line(result: Result) -> dict[str, Any]:
    """A variant's figures by column: success with its 95 % interval, episodes redrawn by task."""
    values = {name: result[name] for name in COLUMNS[:6]}
    for suite in ("babyai", "metaworld"):
        scores = successes(result, suite)
        interval = stratified_bootstrap(scores, mean_of_tasks)
        values[suite] = float(np.mean([np.mean(task) for task in scores]))
        values[f"{suite}_low"], values[f"{suite}_high"] = interval.low, interval.high
    return values


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as a table."""
    rows = [
        "| variant | steps | accuracy | error | BabyAI success | Meta-World success |",
        "|---|---|---|---|---|---|",
    ]
    for v in lines:
        shown = [
            f"{v[s]:.2f} ({v[f'{s}_low']:.2f} to {v[f'{s}_high']:.2f})"
            for s in ("babyai", "metaworld")
        ]
        rows.append(
            f"| {v['what']} | {v['steps']} | {v['accuracy']:.3f} | "
            f"{v['error']:.4f} | {shown[0]} | {shown[1]} |"
        )
    return "\n".join(rows)


def write_table(results: Sequence[Result], table: Path, page: Path) -> None:
    """Write the table as CSV, and into a page where its comments say.

    Raises:
        ValueError: The page has no such place.
    """
    lines = [line(result) for result in results]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for values in lines:
            rounded = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()}
            writer.writerow(rounded)
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} has no place for the table: expected {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{markdown(lines)}\n{END}{rest.split(END)[1]}")
