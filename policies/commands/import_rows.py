"""The command ``gato-gym import``: the JAT dataset's schema as a Minari dataset.

* :func:`main` -- runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from gato_gym.commands.common import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 where something failed, 130 after Ctrl-C."""
    return run_command(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gato-gym", description="A network of your own.")
    _add_import(parser.add_subparsers(dest="command", required=True))
    return parser


def _add_import(commands: Any) -> None:
    rows = commands.add_parser(
        "import",
        help="episodes in the JAT dataset's schema as a Minari dataset",
        description="Turn rows of the JAT dataset's schema, one an episode, into a Minari dataset.",
    )
    rows.set_defaults(run=_import)
    rows.add_argument("source", help="a .parquet or .jsonl file, a folder, or jat:TASK of the hub")
    rows.add_argument("--dataset", required=True, metavar="ID", help="such as jat/halfcheetah-v0")
    rows.add_argument("--env", metavar="ENV_ID", help="gives spaces and id (default: inferred)")


def _import(args: argparse.Namespace, console: Console) -> int:
    import gato_gym
    from gato_gym.episodes.jat import import_rows, read_rows

    env = None if args.env is None else gato_gym.make(args.env)
    returns = import_rows(read_rows(args.source), args.dataset, env=env)
    console.print(
        f"{args.dataset}: {len(returns)} episodes, mean return {sum(returns) / len(returns):.2f}",
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
