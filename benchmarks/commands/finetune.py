"""The command ``gato-gym finetune``: how few episodes are enough.

* :func:`main` -- runs it.
"""

from __future__ import annotations

import argparse
import json
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
    _add_finetune(parser.add_subparsers(dest="command", required=True))
    return parser


def _add_finetune(commands: Any) -> None:
    finetune = commands.add_parser(
        "finetune",
        help="fine-tune a checkpoint on a few of your own episodes",
        description="Fine-tune a checkpoint on nested subsets of the episodes of one environment, "
        "score each, and draw the curve. Stopped at any moment, the same command goes on.",
    )
    finetune.set_defaults(run=_finetune)
    add = finetune.add_argument
    add(
        "--from",
        dest="source",
        required=True,
        help="folder, shipped name such as gato-mini, hub id",
    )
    add("--dataset", nargs="+", required=True, metavar="ID", help="Minari ids or paths")
    add("--output", type=Path, required=True, help="folder of the run")
    add(
        "--episodes", type=_numbers, default=(1, 3, 5, 10, 100), metavar="N,N,…",
        help="sizes of the subsets (default: 1,3,5,10,100)",
    )  # fmt: skip
    add("--seeds", type=int, default=3, help="of each (default: 3)")
    add("--steps", type=int, default=500, help="updates of each (default: 500)")
    add("--lora", type=int, metavar="RANK", help="train updates of this rank alone")
    add("--from-scratch", action="store_true", help="beside it, fresh weights on the same batches")
    add("--env", metavar="ENV_ID", help="where the dataset does not tell: module:ENV_ID")
    add("--score-episodes", type=int, default=20, help="each plays (default: 20)")
    add("--environments", type=int, default=10, help="at a time (default: 10)")
    add("--rate", type=float, help="peak learning rate (default: a quarter of training's)")
    add("--optimiser", choices=("muon", "adamw"), help="default: muon; adamw with --lora")
    add("--layout", choices=("lean", "paper"), help="of the tokens (default: the checkpoint's)")
    add("--memory", choices=("all", "observations", "none"), help="what later timesteps see")
    add("--options", type=json.loads, default={}, help="other PlanOptions, as JSON")
    add_common(add)


def _finetune(args: argparse.Namespace, console: Console) -> int:
    from benchmarks.studies.finetune import FinetuneRun
    from benchmarks.studies.settings import FinetuneSettings

    run = FinetuneRun(FinetuneSettings(**study_settings(args)), console)
    checkpoint = run.run()
    console.print(
        f"{args.output / 'curve.csv'} has the curve, {checkpoint} the network. Next:\n"
        f"  gato-gym score {run.environments[0].spec.id} --policy {args.output}\n"
        f'  GatoPolicy.load("{args.output}", env=env)',
        highlight=False,
        markup=False,
    )
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
