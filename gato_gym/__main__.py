"""The command ``gato-gym``, also ``python -m gato_gym``: inspect, record, train and score."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import gymnasium as gym
from rich.console import Console

from gato_gym.inspection import inspect_environment

ELSEWHERE = {
    "record": "record a policy's episodes as a Minari dataset",
    "train": "train a network on your own episodes",
    "import": "episodes in the JAT dataset's schema as a Minari dataset",
    "score": "a policy's return beside chance's and the expert's",
}
"""Commands of :mod:`policies.training.commands`, which is imported only when one is asked for."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="gato-gym", description="Environments as tokens.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser(
        "inspect",
        help="how an environment becomes tokens",
        description="Print how an environment becomes tokens: a row for each part of a timestep.",
    )
    add = inspect.add_argument
    add(
        "environment",
        metavar="ENV_ID",
        help="such as Gato/babyai-go-to-local, or ale_py:ALE/Pong-v5 to import its module first",
    )
    add("--layout", choices=("paper", "lean"), help="default: the task's own, or lean")
    add("--window", type=int, default=1024, help="tokens of a window (default: 1024)")
    add("--seed", type=int, default=0, help="of the episode (default: 0)")
    add("--image", type=Path, metavar="FILE", help="draw one timestep: a .png, .svg or .pdf file")
    for name, what in ELSEWHERE.items():
        commands.add_parser(name, help=what, add_help=False)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] and given[0] in ELSEWHERE:
        return int(importlib.import_module("policies.training.commands").main(given))
    args = parse_arguments(given)
    warnings.showwarning = _say
    try:
        found = inspect_environment(
            args.environment, layout=args.layout, seed=args.seed, render=args.image is not None
        )
        console = Console()
        console.print(found.table())
        console.print(found.summary(args.window), highlight=False, soft_wrap=True)
        if args.image is not None:
            from gato_gym.picture import draw

            draw(found, args.image, window=args.window)
            console.print(f"drew {args.image}", highlight=False, soft_wrap=True)
    except (gym.error.Error, ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _say(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    print(f"{category.__name__}: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
