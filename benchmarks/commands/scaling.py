"""The command ``gato-gym scaling``: loss and score of several sizes.

* :func:`main` -- runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.commands.common import add_common, study_settings
from gato_gym.commands.common import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 where something failed, 130 after Ctrl-C."""
    return run_command(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gato-gym", description="Studies of a network.")
    _add_scaling(parser.add_subparsers(dest="command", required=True))
    return parser


def _add_scaling(commands: Any) -> None:
    scaling = commands.add_parser(
        "scaling",
        help="train sizes of one shape on the same tokens and draw loss and score",
        description="Train networks of several sizes on the same tokens; measure loss on held-out "
        "episodes, and the score, along the way. Stopped at any moment, the same command goes on.",
    )
    scaling.set_defaults(run=_scaling)
    add = scaling.add_argument
    add("--dataset", nargs="+", required=True, metavar="ID", help="Minari ids or paths")
    add("--output", type=Path, required=True, help="folder of the study")
    add(
        "--sizes", type=_names, default=("0.4m", "0.7m", "1.4m", "2.8m"), metavar="SIZE,…",
        help="presets (default: 0.4m,0.7m,1.4m,2.8m; there is 5.8m too)",
    )  # fmt: skip
    add("--tokens", type=float, default=2e6, help="of each size's training (default: 2e6)")
    add("--points", type=int, default=5, help="measurements along a training (default: 5)")
    add("--score-episodes", type=int, default=10, help="of each task; 0: no score (default: 10)")
    add("--environments", type=int, default=10, help="at a time (default: 10)")
    add("--held-out", type=float, default=0.05, help="share of episodes (default: 0.05)")
    add("--seed", type=int, default=0)
    add_common(add)


def _scaling(args: argparse.Namespace, console: Console) -> int:
    from benchmarks.studies.scaling import ScalingRun
    from benchmarks.studies.settings import ScalingSettings

    ScalingRun(ScalingSettings(**study_settings(args)), console).run()
    console.print(f"{args.output / 'scaling.csv'} has the table", highlight=False)
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


if __name__ == "__main__":
    sys.exit(main())
