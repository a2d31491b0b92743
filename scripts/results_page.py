"""Write ``docs/results.md`` from finished benchmark runs.

python -m benchmarks.run --suite babyai --output results/babyai
python -m benchmarks.run --suite metaworld --output results/metaworld
python scripts/results_page.py results/babyai results/metaworld
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gato_gym.commands.common import exit_status
from gato_gym.files.bounded_io import read_json


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


def main() -> None:
    """The command line: folders of runs."""
    lines = [
        "# Results",
        "",
        "Written by `scripts/results_page.py` from runs of `benchmarks.run`.",
        "",
    ]
    for folder in sys.argv[1:]:
        lines += section(read_json(Path(folder) / "summary.json"))
    Path("docs/results.md").write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(exit_status(main))
