"""A small network that some tasks were held out of, for few-shot curves of tasks it never saw.

    python -m benchmarks.studies.held_out --shards data/shards --root data --work runs/held-out

* :func:`held_out_settings` -- what is trained.

Stopped at any moment, the same command resumes it. ``gato-gym finetune --from runs/held-out``
fine-tunes it on a task of :data:`HELD_OUT`; docs/training.md shows what came of it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
import tyro

from benchmarks.studies.recipe_episodes import datasets
from gato_gym.commands.common import exit_status
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

PRETRAINING = {
    "babyai": (
        "action-obj-door", "go-to-door", "go-to-local", "go-to-obj", "go-to-obj-door",
        "go-to-red-ball", "go-to-red-blue-ball", "open-door", "open-red-door", "unlock-local",
    ),
    "metaworld": (
        "button-press", "button-press-topdown", "door-close", "door-open", "drawer-close",
        "drawer-open", "faucet-close", "faucet-open", "handle-press", "plate-slide", "push",
        "reach",
    ),
}  # fmt: skip
"""Tasks by suite: of no level is the mission to pick an object up, and in no task is a window or
a hammer."""

HELD_OUT = ("babyai-pickup-dist", "metaworld-hammer", "metaworld-window-open")
"""Tasks of the same suites that it does not see."""


def held_out_settings(root: Path, shards: Path, work: Path, *, steps: int = 900) -> TrainSettings:
    """What it is trained with: the smallest preset, on the shards and prompted as ``gato-mini``."""
    return TrainSettings(
        datasets=datasets(root, suites=("babyai", "metaworld")),
        output=work,
        shards=shards,
        preset="tiny",
        steps=steps,
        tasks=tuple(f"{suite}-{name}" for suite, names in PRETRAINING.items() for name in names),
        group_by="suite",
        adaptive="none",
        augment=2,
        keep=0.0,
        weights={"babyai": 0.5, "metaworld": 0.5},
        prompt_shares={"babyai": 0.06, "metaworld": 0.75},
        optimiser_options={"warmup": 100},
        rows=16,
        length=256,
        device="cpu",
        score_every=0,
    )


def train(
    *,
    steps: int = 900,
    until: int | None = None,
    shards: Path = Path("data/shards"),
    root: Path = Path("data"),
    work: Path = Path("runs/held-out"),
    threads: int = 1,
) -> None:
    """Train a network without some tasks.

    Args:
        steps: Updates.
        until: Stop at this one of the steps.
        shards: Folder of the encoded episodes, which gato-mini uses too.
        root: Folder of the datasets.
        work: Folder of the run.
        threads: Threads of the CPU.
    """
    torch.set_num_threads(threads)
    settings = replace(held_out_settings(root, shards, work, steps=steps), until=until)
    TrainRun(settings).train()


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(train)))
