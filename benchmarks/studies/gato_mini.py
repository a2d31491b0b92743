"""The recipe of ``gato-mini``: one command from nothing to the shipped checkpoint.

    python -m benchmarks.studies.gato_mini            # collect, shard, train, export, evaluate
    python -m benchmarks.studies.gato_mini --from train
    python -m benchmarks.studies.gato_mini --dry-run  # what would be drawn from the shards

Every stage can be stopped and run again: it is resumed where it was.

* :func:`collections` -- what is collected.
* :func:`mini_settings` -- what is trained on it, by the code of ``gato-gym train``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import tyro

from gato_gym.tasks import Task, list_tasks
from gato_gym.terminal import new_console
from policies.collection.collect import collect, with_experts
from policies.collection.jobs import CollectSettings
from policies.collection.recorder import RecordSettings
from policies.gato.checkpoint import RUN_CHECKPOINT
from policies.threads import ONE_THREAD
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

Stage = Literal["collect", "shard", "train", "export", "evaluate"]
STAGES: tuple[Stage, ...] = get_args(Stage)

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

PROMPT_SHARES = {"babyai": 0.06, "metaworld": 0.75}
"""A quarter of the documents carry a prompt: most of Meta-World's, whose observations do not name
the task, and few of BabyAI's, whose instructions do."""


def collections(root: Path) -> list[tuple[list[Task], CollectSettings]]:
    """What is collected: every task's episodes, and twice as many of the hard ones."""
    arm = RecordSettings(noise=0.8, steps_after_success=40)
    navigation = RecordSettings(noise=0.2)
    hard = {f"{suite}-{name}" for suite, names in HARD_TASKS.items() for name in names}
    planned = []
    for factor, are_hard in ((1, False), (2, True)):
        arms, rooms = (
            [task for task in list_tasks(suite) if (task.id in hard) == are_hard]
            for suite in ("metaworld", "babyai")
        )
        episodes, steps = 80 * factor, 24_000 * factor
        planned.append((arms, CollectSettings(root, arm, episodes=episodes, expert_episodes=5)))
        planned.append((rooms, CollectSettings(root, navigation, steps=steps)))
    return planned


def suite_datasets(root: Path) -> tuple[str, ...]:
    """Where the collected episodes of both suites are."""
    tasks = [task.id for suite in HARD_TASKS for task in list_tasks(suite)]
    return tuple(str(root / "gato" / f"{task}-v0") for task in tasks)


def mini_settings(root: Path, shards: Path, work: Path, *, steps: int = 3600) -> TrainSettings:
    """What ``gato-mini`` is trained with.

    Args:
        root: Folder of the datasets.
        shards: Folder of the encoded episodes.
        work: Folder of the run.
        steps: Updates.
    """
    return TrainSettings(
        datasets=suite_datasets(root),
        output=work,
        shards=shards,
        network={"width": 192, "heads": 3, "feed_forward": 384, "vector_hidden": 384},
        steps=steps,
        group_by="suite",
        augment=2,
        keep=0.0,
        weights={"babyai": 0.45, "metaworld": 0.55},
        emphasis={f"{suite}-{name}": 2.0 for suite in HARD_TASKS for name in HARD_TASKS[suite]},
        prompt_shares=PROMPT_SHARES,
        rows=24,
        length=256,
        workers=os.cpu_count() or 1,
        keep_every=400,
        score_every=0,
    )


def _train_in_parallel(processes: int) -> None:
    """Train with one process a core: on a CPU that is faster than one process of many threads."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(processes), "-m", "benchmarks.studies.gato_mini",
        *sys.argv[1:], "--from", "train", "--to", "train",
    ]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, **ONE_THREAD})


def make(
    *,
    first: Annotated[Stage, tyro.conf.arg(name="from")] = "collect",
    final: Annotated[Stage, tyro.conf.arg(name="to")] = "evaluate",
    steps: int = 3600,
    root: Path = Path("data"),
    shards: Path = Path("data/shards"),
    work: Path = Path("runs/gato-mini"),
    output: Path | None = None,
    processes: int | None = None,
    fsdp: bool = False,
    tensorboard: bool = False,
    dry_run: bool = False,
) -> None:
    """Make gato-mini from nothing.

    Args:
        first: First stage.
        final: Last stage.
        steps: Updates.
        root: Folder of the datasets.
        shards: Folder of the encoded episodes.
        work: Folder of the run.
        output: Folder of the checkpoint; None is "checkpoint" in the run's folder.
        processes: That train; None for one a core.
        fsdp: Each process holds a part of the backbone (FSDP2).
        tensorboard: Write TensorBoard's events as well.
        dry_run: Print the mixture of the shards alone.
    """
    settings = mini_settings(root, shards, work, steps=steps)
    settings = replace(settings, fsdp=fsdp, tensorboard=tensorboard)
    console, checkpoint = new_console(soft_wrap=True), output or work / RUN_CHECKPOINT
    stages = STAGES[STAGES.index(first) : STAGES.index(final) + 1]
    if dry_run:
        TrainRun(settings, console).describe()
        return
    if "LOCAL_RANK" in os.environ:  # one of the processes that torchrun started
        torch.set_num_threads(1)
        TrainRun(settings).train()
        return
    if "collect" in stages:
        for tasks, collection in collections(root):
            collect(with_experts(tasks, console), collection, console=console)
    if "shard" in stages:
        TrainRun(settings, console)
    if "train" in stages:
        _train_in_parallel(processes or os.cpu_count() or 1)
    if "export" in stages:
        TrainRun(settings, console).export(checkpoint)
    if "evaluate" in stages:
        for suite in HARD_TASKS:
            command = [sys.executable, "-m", "benchmarks.run", "--suite", suite, "--episodes", "20"]
            where = ["--policy", str(checkpoint), "--output", f"results/{suite}"]
            subprocess.run([*command, *where], check=True)


if __name__ == "__main__":
    tyro.cli(make)
