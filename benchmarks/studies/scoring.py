"""What studies let ``benchmarks.run`` play, and the figures that they take from its summary.

* :func:`bench` -- one run, which is resumed where it has begun.
* :func:`suite_means` -- its mean score in each suite, with intervals; :func:`shown` as text.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gato_gym.commands.common import CommandFailed
from gato_gym.files.bounded_io import read_json

MEAN = "normalised mean"
"""What of a suite is in tables, see docs/benchmark.md."""


def bench(output: Path, *flags: str) -> dict[str, Any]:
    """Play what is left of a run of ``benchmarks.run``.

    Args:
        output: The run's folder.
        flags: All others of the command.

    Returns:
        The content of its ``summary.json``.

    Raises:
        CommandFailed: The command failed; what it has played is kept.
    """
    command = [sys.executable, "-m", "benchmarks.run", *flags, "--output", str(output)]
    resume = ["--resume"] if output.exists() else []
    status = subprocess.run([*command, *resume], check=False).returncode
    if status:
        raise CommandFailed(
            f"benchmarks.run ended with status {status} in {output}: the study's command again "
            "continues there"
        )
    summary: dict[str, Any] = read_json(output / "summary.json")
    return summary


def suite_means(summary: Mapping[str, Any], suites: Iterable[str]) -> dict[str, float | None]:
    """By suite the mean score, and by ``SUITE_low`` and ``SUITE_high`` its 95 % interval.

    Args:
        summary: Of a run.
        suites: Whose figures are taken; None where the summary has none.
    """
    values = {}
    for suite in suites:
        mean = summary["suites"].get(suite, {}).get(MEAN, {})
        values[suite] = mean.get("value")
        values |= {f"{suite}_{end}": mean.get(end) for end in ("low", "high")}
    return values


def shown(values: Mapping[str, Any], suite: str) -> str:
    """A suite's figures of :func:`suite_means`, such as ``0.95 (0.93 to 0.97)``."""
    if values[suite] is None:
        return "-"
    low, high = values[f"{suite}_low"], values[f"{suite}_high"]
    return f"{values[suite]:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")
