"""The recipe of ``gato-mini``: one command from nothing to the shipped checkpoint.

    python -m benchmarks.studies.gato_mini            # collect, shard, train, export, evaluate
    python -m benchmarks.studies.gato_mini --from train
    python -m benchmarks.studies.gato_mini --dry-run  # what would be drawn from the shards

Every stage can be stopped and run again: it goes on where it was.

* :func:`mini_config` -- what is trained.
* :func:`collect_commands` -- on which episodes.
* :func:`describe` -- prints what is drawn of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch
from rich.console import Console

from gato_gym import list_tasks
from policies.model.config import NetworkConfig
from policies.threads import ONE_THREAD
from policies.training.config import TrainConfig, as_begun
from policies.training.data.mixture_report import measure_mixture, mixture_table
from policies.training.data.packing import Mixture, Packer
from policies.training.export import export
from policies.training.optimizer import OptimiserConfig
from policies.training.trainer import open_shards, train

STAGES = ("collect", "shard", "train", "export", "evaluate")

HARD_TASKS = {
    "babyai": (
        "boss-level", "boss-level-no-unlock", "go-to-imp-unlock", "mini-boss-level",
        "move-two-across-s8n9", "put-next", "put-next-local", "synth-loc", "synth-seq", "unlock",
        "unlock-to-unlock",
    ),
    "metaworld": (
        "assembly", "basketball", "bin-picking", "box-close", "disassemble", "handle-pull-side",
        "peg-unplug-side", "pick-out-of-hole", "pick-place-wall", "shelf-place", "soccer",
        "stick-pull",
    ),
}  # fmt: skip
"""Tasks on which an earlier network was weak: they get twice the episodes and twice the weight."""


def mini_config(steps: int) -> TrainConfig:
    """What ``gato-mini`` is trained with.

    A quarter of the documents carry a prompt: most of Meta-World's, whose observations do not name
    the task, and few of BabyAI's, whose instructions do.
    """
    return TrainConfig(
        network=NetworkConfig(
            width=192,
            layers=4,
            heads=3,
            feed_forward=384,
            vector_hidden=384,
            window=256,
            prompt_tokens=32,
        ),
        mixture=Mixture(
            weights={"babyai": 0.45, "metaworld": 0.55},
            prompt_share={"babyai": 0.06, "metaworld": 0.75},
            balance=0.5,
            emphasis={f"{suite}-{name}": 2.0 for suite in HARD_TASKS for name in HARD_TASKS[suite]},
        ),
        optimiser=OptimiserConfig(),
        steps=steps,
        rows=24,
        length=256,
    )


def collect_commands(root: Path) -> list[list[str]]:
    """The commands that collect the recipe's episodes: every task's, then more of the hard ones."""
    base = [sys.executable, "-m", "gato_gym", "collect", "--root", str(root), "--suite"]
    babyai = [*base, "babyai", "--noise", "0.2"]
    metaworld = [*base, "metaworld", "--noise", "0.8"]
    metaworld += ["--steps-after-success", "40", "--expert-episodes", "5"]
    hard = {suite: ["--tasks", ",".join(names)] for suite, names in HARD_TASKS.items()}
    return [
        [*metaworld, "--tasks", _all_but_hard("metaworld"), "--episodes", "80"],
        [*metaworld, *hard["metaworld"], "--episodes", "160"],
        [*babyai, "--tasks", _all_but_hard("babyai"), "--steps", "24000"],
        [*babyai, *hard["babyai"], "--steps", "48000"],
    ]


def _all_but_hard(suite: str) -> str:
    hard = {f"{suite}-{name}" for name in HARD_TASKS[suite]}
    return ",".join(task.id for task in list_tasks(suite) if task.id not in hard)


def describe(config: TrainConfig, shards_folder: Path) -> None:
    """Print the mixture as it is drawn, and how much of it is padding."""
    shards = open_shards(shards_folder, sorted(config.mixture.weights))
    packer = Packer(
        shards,
        {task: shard.group for task, shard in shards.items()},
        config.mixture,
        config.network,
        rows=config.rows,
        length=config.length,
        seed=config.seed,
    )
    tokens = config.steps * config.rows * config.length
    Console().print(mixture_table(measure_mixture(packer), tokens=tokens))


def train_in_parallel(args: argparse.Namespace) -> None:
    """Train with one process a core: on a CPU that is faster than one process of many threads."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(args.processes), "-m", "benchmarks.studies.gato_mini",
        "--only-train", "--steps", str(args.steps), "--shards", str(args.shards),
        "--work", str(args.work), *(["--fsdp"] if args.fsdp else []),
        *(["--tensorboard"] if args.tensorboard else []),
    ]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, **ONE_THREAD})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make gato-mini from nothing.")
    parser.add_argument("--from", dest="first", choices=STAGES, default="collect")
    parser.add_argument("--to", dest="final", choices=STAGES, default="evaluate")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--shards", type=Path, default=Path("data/shards"))
    parser.add_argument("--work", type=Path, default=Path("runs/gato-mini"))
    parser.add_argument("--output", type=Path, default=Path("runs/gato-mini/checkpoint"))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--fsdp", action="store_true", help="each process holds a part (FSDP2)")
    parser.add_argument("--tensorboard", action="store_true", help="write its events as well")
    parser.add_argument("--only-train", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="print the mixture of the shards")
    args = parser.parse_args()
    if args.dry_run:
        describe(as_begun(mini_config(args.steps), args.work), args.shards)
        return
    if args.only_train:
        torch.set_num_threads(1)
        how = {"fsdp": args.fsdp, "tensorboard": args.tensorboard}
        train(mini_config(args.steps), args.shards, args.work, **how)
        return
    stages = STAGES[STAGES.index(args.first) : STAGES.index(args.final) + 1]
    if "collect" in stages:
        for command in collect_commands(args.root):
            subprocess.run(command, check=True)
    if "shard" in stages:
        base = [sys.executable, "-m", "policies.training.data.shards"]
        folders = ["--root", str(args.root), "--output", str(args.shards)]
        subprocess.run([*base, *folders, "--augment", "2"], check=True)
    if "train" in stages:
        train_in_parallel(args)
    if "export" in stages:
        export(args.work, shards=args.shards, root=args.root, output=args.output)
    if "evaluate" in stages:
        for suite in ("babyai", "metaworld"):
            command = [sys.executable, "-m", "benchmarks.run", "--suite", suite, "--episodes", "20"]
            output = ["--policy", str(args.output), "--output", f"results/{suite}"]
            subprocess.run([*command, *output], check=True)


if __name__ == "__main__":
    main()
