"""Write the figures of finished benchmark runs: every task, the scores by suite, a plot.

python -m benchmarks.run --suite babyai --output results/babyai
python -m benchmarks.run --suite metaworld --output results/metaworld
python scripts/results_page.py results/babyai results/metaworld

``docs/results.md`` has every task, ``docs/results.png`` how many of them reach each share of their
expert (as figure 5 of arXiv 2205.06175), and the table of ``README.md`` a line for each suite.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.plots import fill_page, panels
from gato_gym.commands.common import exit_status
from gato_gym.files.bounded_io import read_json

PAGES = Path("docs/results.md"), Path("docs/results.png"), Path("README.md")
TITLES = {
    "atari": ("Atari", "games", "small networks trained here"),
    "mujoco": ("MuJoCo", "tasks", "small networks trained here"),
    "babyai": ("BabyAI", "levels", "MiniGrid's bot"),
    "metaworld": ("Meta-World", "tasks, MT50 v3", "scripted policies"),
    "dm_control": ("dm_control", "tasks", "small networks trained here"),
}
"""By suite: its name, what its tasks are, and who its experts are."""


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def repeated(task: dict[str, Any]) -> str:
    """How many of a task's episodes are distinct, where that is fewer."""
    distinct = task.get("distinct")
    few = distinct is not None and distinct < task["episodes"]
    return f" ({distinct} of {task['episodes']} distinct)" if few else ""


def section(summary: dict[str, Any]) -> list[str]:
    """One suite: averages, then a line for each task."""
    protocol, policy = summary["protocol"], summary["policy"]
    digits = 2 if protocol["suite"] == "babyai" else 0
    lines = [
        f"## {protocol['suite']}",
        "",
        f"`{policy['name']}`, {protocol['episodes']} episodes a task, seed {protocol['seed']}, "
        f"protocol `{summary['protocol_hash']}`"
        + ("." if summary["complete"] else "; **incomplete**."),
        "",
        "| average | value | 95 % interval | tasks |",
        "|---|---|---|---|",
    ]
    for name, result in summary["aggregates"].items():
        interval = "-" if result["low"] is None else f"{result['low']:.3f} to {result['high']:.3f}"
        lines.append(f"| {name} | {result['value']:.3f} | {interval} | {result['tasks']} |")
    lines += [
        "",
        "| task | random | expert | policy | normalised | success |",
        "|---|---|---|---|---|---|",
    ]
    for task, result in summary["tasks"].items():
        lines.append(
            f"| {task} | {number(result['random'], digits)} | {number(result['expert'], digits)} "
            f"| {number(result['mean'], digits)}{repeated(result)} "
            f"| {number(result['normalised'], 2)} | {number(result['success'], 2)} |"
        )
    return [*lines, ""]


def score_line(summary: Mapping[str, Any]) -> str:
    """A suite's line in the table of scores."""
    suite, results = summary["protocol"]["suite"], summary["aggregates"]
    name, kind, expert = TITLES.get(suite, (suite, "tasks", ""))
    mean, middle = results["normalised mean"], results["normalised IQM"]
    score = f"{mean['value']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})"
    if "success" in results:
        score += f", success {results['success']['value']:.3f}"
    return f"| {name}, {mean['tasks']} {kind} | {score} | {middle['value']:.3f} | {expert} |"


def score_table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Mean and IQM of the tasks' normalised scores, by suite."""
    head = ["| suite | mean, 1 is the expert (95 %) | IQM | expert |", "|---|---|---|---|"]
    return "\n".join([*head, *map(score_line, summaries)])


def tasks_above(
    summary: Mapping[str, Any], shares: np.ndarray[Any, np.dtype[np.float64]]
) -> list[int]:
    """How many of a suite's tasks reach each share of their expert's normalised return."""
    scores = [task["normalised"] for task in summary["tasks"].values()]
    return [sum(s is not None and s >= share for s in scores) for share in shares]


def plot(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the tasks that reach each share, one suite on top of another."""
    shares = np.linspace(0, 1, 101)
    counts = [tasks_above(summary, shares) for summary in summaries]
    names = [summary["protocol"]["suite"] for summary in summaries]
    with panels(path, 1, 1) as (axes,):
        axes.stackplot(100 * shares, counts, labels=[TITLES.get(n, (n,))[0] for n in names])
        axes.set_xlabel("% of the expert's score")
        axes.set_ylabel("tasks at or above it")
        axes.set_xlim(0, 100)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), reverse=True, frameon=False)


def main() -> None:
    """The command line: folders of runs."""
    page, figure, readme = PAGES
    summaries = [read_json(Path(folder) / "summary.json") for folder in sys.argv[1:]]
    lines = [
        "# Results",
        "",
        "Written by `scripts/results_page.py` from runs of `benchmarks.run`.",
        "",
        "![Tasks at or above each share of their expert's score, by suite](results.png)",
        "",
    ]
    for summary in summaries:
        lines += section(summary)
    page.write_text("\n".join(lines))
    plot(summaries, figure)
    fill_page(readme, "scores", score_table(summaries))


if __name__ == "__main__":
    sys.exit(exit_status(main))
