"""The commands ``gato-gym finetune`` and ``gato-gym scaling``.

* :func:`main` -- runs one of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from policies.command_line import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0, 1 where something failed, 130 after Ctrl-C."""
    return run_command(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gato-gym", description="Studies of a network.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_finetune(commands)
    _add_scaling(commands)
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
    _add_common(add)


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
    _add_common(add)


def _add_common(add: Any) -> None:
    add("--keep", type=float, default=0.8, help="least share of the expert's return; 0: all")
    add("--rows", type=int, default=8, help="packed sequences of a batch (default: 8)")
    add("--length", type=int, default=256, help="tokens of a sequence (default: 256)")
    add("--device", default="auto", help="cpu, cuda (default: auto)")
    add("--threads", type=int, help="of a CPU (default: all cores)")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a study's settings, after setting the threads."""
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    given = {k: v for k, v in vars(args).items() if k not in ("command", "run", "threads")}
    datasets = tuple(given.pop("dataset"))
    return {**given, "datasets": datasets}


def _finetune(args: argparse.Namespace, console: Console) -> int:
    from policies.training.finetune import FinetuneRun, FinetuneSettings

    run = FinetuneRun(FinetuneSettings(**_settings(args)), console)
    checkpoint = run.run()
    console.print(
        f"{args.output / 'curve.csv'} has the curve, {checkpoint} the network. Next:\n"
        f"  gato-gym score {run.environments[0].spec.id} --policy {args.output}\n"
        f'  GatoPolicy.load("{args.output}", env=env)',
        highlight=False,
        markup=False,
    )
    return 0


def _scaling(args: argparse.Namespace, console: Console) -> int:
    from policies.training.scaling import ScalingRun, ScalingSettings

    ScalingRun(ScalingSettings(**_settings(args)), console).run()
    console.print(f"{args.output / 'scaling.csv'} has the table", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
