"""The command ``gato-gym train``: a network of your own.

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

from gato_gym.commands.common import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 where something failed, 130 after Ctrl-C."""
    return run_command(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gato-gym", description="A network of your own.")
    _add_train(parser.add_subparsers(dest="command", required=True))
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a network on your own episodes",
        description="Train a network on Minari datasets. Stopped at any moment, the same command "
        "goes on where it was.",
    )
    train.set_defaults(run=_train)
    add = train.add_argument
    add("--dataset", nargs="+", required=True, metavar="ID", help="Minari ids or paths")
    add("--text", nargs="+", type=Path, default=[], metavar="FILE", help="texts: .jsonl, .txt")
    add(
        "--pairs", nargs="+", type=Path, default=[], metavar="FILE", help="images and texts: .jsonl"
    )
    add("--output", type=Path, required=True, help="folder of the run")
    add("--preset", default="mini", help="tiny, mini (default), small, 79m, 364m, 1.18b")
    amount = train.add_mutually_exclusive_group()
    amount.add_argument("--steps", type=int, help="updates (default: 2000)")
    amount.add_argument("--minutes", type=float, help="time for updates, measured at the start")
    add("--layout", choices=("lean", "paper"), help="of the tokens (default: lean)")
    add("--memory", choices=("all", "observations", "none"), help="what later timesteps see")
    add("--options", type=json.loads, default={}, help="other PlanOptions, as JSON")
    add("--keep", type=float, default=0.8, help="least share of the expert's return; 0: all")
    add(
        "--weights",
        type=json.loads,
        default={},
        help='of tasks and texts, as JSON: {"CartPole-v1": 2}',
    )
    add("--prompt-share", type=float, default=0.25, help="of documents (default: 0.25)")
    add("--prompt-end", type=float, default=0.5, help="of prompts, episodes' ends (default: 0.5)")
    add("--optimiser", choices=("muon", "adamw", "paper"), help="paper: as published")
    add("--rows", type=int, help="packed sequences of a batch (default: 8)")
    add("--length", type=int, help="tokens of a sequence (default: 256)")
    add("--accumulate", type=int, help="parts of a batch, for less memory (default: 1)")
    add("--recompute", action="store_true", help="activations, for less memory")
    add("--precision", choices=("float32", "bfloat16"), default="float32")
    add("--device", default="auto", help="cpu, cuda (default: auto)")
    add("--attention", choices=("auto", "dense", "flex"), default="auto", help="flex: GPUs alone")
    add("--threads", type=int, help="of a CPU (default: 1 for tiny, else all cores)")
    add("--fsdp", action="store_true", help="under torchrun: each process holds a part (FSDP2)")
    add("--tensorboard", action="store_true", help="write its events as well")
    add("--score-every", type=int, metavar="N", help="play tasks every N steps (default: never)")
    add("--score-tasks", nargs="+", default=(), metavar="ID", help="which (default: all)")
    add("--score-episodes", type=int, default=5, metavar="N", help="of each (default: 5)")
    add("--seed", type=int, default=0)
    add("--dry-run", action="store_true", help="encode, print the mixture, and stop")
    _add_loss_options(train)


def _add_loss_options(train: argparse.ArgumentParser) -> None:
    group = train.add_argument_group("loss and regularisation, measured in docs/training.md")
    add = group.add_argument
    add("--sigma", type=float, default=4.0, help="bins a label is spread over (default: 4; 0: one)")
    add(
        "--observation-weight", type=float, default=0.0, metavar="SHARE",
        help="of the loss, for predicting the next observation (default: 0; JAT: 0.005)",
    )  # fmt: skip
    add("--action-drop", type=float, default=0.0, metavar="P", help="of past actions, memory all")
    add("--depth-drop", type=float, default=0.0, metavar="P", help="stochastic depth (paper: 0.1)")
    add("--observation-noise", type=float, default=0.0, metavar="STD", help="of their numbers")
    add(
        "--numeric-features", action=argparse.BooleanOptionalAction, default=True,
        help="in embeddings of continuous values",
    )  # fmt: skip


def _train(args: argparse.Namespace, console: Console) -> int:
    import torch

    from policies.training.run import TrainRun
    from policies.training.settings import TrainSettings

    threads = args.threads or (1 if args.preset == "tiny" else torch.get_num_threads())
    torch.set_num_threads(threads)
    left = ("command", "run", "dry_run", "threads")
    given = {k: v for k, v in vars(args).items() if k not in left}
    given["score_tasks"] = tuple(given["score_tasks"])
    datasets, texts, pairs = (tuple(given.pop(name)) for name in ("dataset", "text", "pairs"))
    run = TrainRun(TrainSettings(datasets=datasets, texts=texts, pairs=pairs, **given), console)
    run.describe()
    if args.dry_run:
        console.print("nothing was trained: leave out --dry-run to do so")
        return 0
    run.train()
    first = run.tasks[0].id
    console.print(
        f"{args.output} holds the network. Next:\n"
        f"  gato-gym score {first} --policy {args.output} --dataset {args.dataset[0]}\n"
        f'  GatoPolicy.load("{args.output}", env=gym.make("{first}"))',
        highlight=False,
        markup=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
