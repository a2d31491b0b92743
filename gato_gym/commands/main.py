"""The command ``gato-gym``, also ``python -m gato_gym``: finds its subcommands.

* :func:`main` -- runs one.
"""

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
from gato_gym.listing import print_tasks

ELSEWHERE = {
    "expert": ("policies.commands.expert", "train, score and convert experts"),
    "collect": ("policies.commands.collect", "record experts' episodes of the tasks"),
    "record": ("policies.commands.record", "record a policy's episodes as a Minari dataset"),
    "train": ("policies.commands.train", "train a network on your own episodes"),
    "finetune": (
        "benchmarks.commands.finetune",
        "fine-tune a network on a few of your own episodes",
    ),
    "scaling": ("benchmarks.commands.scaling", "train several sizes and draw loss and score"),
    "import": (
        "policies.commands.import_rows",
        "episodes in the JAT dataset's schema as a Minari dataset",
    ),
    "score": ("policies.commands.score", "a policy's return beside chance's and the expert's"),
}
"""Commands of other packages, by name: the module, imported only when it is asked for, and what it
does."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="gato-gym", description="Environments as tokens, and networks that act in them."
    )
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
    tasks = commands.add_parser(
        "tasks",
        help="the tasks: observation, action, steps, expert",
        description="List the tasks: what they show and take, their steps, who their expert is, "
        "and whether a shipped network knows them.",
    )
    tasks.add_argument("pattern", nargs="?", help="ids or patterns, such as 'mujoco-*,*-reach'")
    tasks.add_argument("--suite", help="of one suite alone")
    for name, (_, what) in ELSEWHERE.items():
        commands.add_parser(name, help=what, add_help=False)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] and given[0] in ELSEWHERE:
        module, _ = ELSEWHERE[given[0]]
        rest = given[1:] if given[0] in ("collect", "expert") else given
        return int(importlib.import_module(module).main(rest))
    args = parse_arguments(given)
    warnings.showwarning = _say
    try:
        if args.command == "tasks":
            print_tasks(args.suite, args.pattern)
            return 0
        inspection = inspect_environment(
            args.environment, layout=args.layout, seed=args.seed, render=args.image is not None
        )
        console = Console()
        console.print(inspection.table())
        console.print(inspection.summary(args.window), highlight=False, soft_wrap=True)
        if args.image is not None:
            from gato_gym.picture import draw

            draw(inspection, args.image, window=args.window)
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
