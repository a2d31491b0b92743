"""The recipe of ``jat-mini``: JAT's network on the episodes of ``gato-mini``.

    python -m benchmarks.studies.gato_mini --rounds 0 --collect-only  # the experts' episodes
    python -m benchmarks.studies.jat_mini                   # trains, then plays all five suites

Both networks have learned from the same episodes of the experts, and are trained by the code of
``gato-gym train``. JAT's has neither task embeddings nor prompts: it is what ``--family jat`` is by
default.

It is trained on single timesteps, and at play it sees the observation alone. Of longer stretches of
an episode it learns to repeat its last action, which is nearly always right there, and plays badly,
as its own first action is then repeated.

* :func:`jat_settings` -- what is trained.
* :func:`main` -- the command.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import tyro

from benchmarks.studies import gato_mini, recipe_episodes
from benchmarks.studies.scoring import bench
from gato_gym.commands.common import exit_status
from policies.gato.checkpoint_folder import RUN_CHECKPOINT
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

CONTEXT = 2
"""Tokens of a timestep, which are all that the network sees in training and at play."""

ROWS = 1_536
"""Timesteps of a batch."""

STEPS = 2_756
"""Updates."""

NETWORK = {
    "hidden_size": 160, "num_heads": 4, "image_channels": (16, 32, 16), "context_tokens": CONTEXT,
}  # fmt: skip
"""What differs from the preset "mini": half of gato-mini's parameters."""

MODULE = "benchmarks.studies.jat_mini"


def jat_settings(
    root: Path,
    work: Path,
    *,
    rounds: int = 0,
    steps: int = STEPS,
    minutes: float | None = None,
) -> TrainSettings:
    """What is trained.

    Args:
        root: Folder of gato-mini's datasets.
        work: Folder of the run.
        rounds: Rounds of gato-mini whose labelled episodes are trained on too.
        steps: Updates.
        minutes: Time for updates, in place of a number of steps.
    """
    shared = gato_mini.shared_settings(
        root,
        work,
        number=rounds,
        steps=None if minutes else steps,
        minutes=minutes,
        factors=recipe_episodes.emphasis(root, rounds),
    )
    return replace(shared, family="jat", rows=ROWS, length=CONTEXT, network=NETWORK)


def main(
    *,
    steps: int = STEPS,
    minutes: float | None = None,
    rounds: int = 0,
    root: Path = Path("data"),
    work: Path = Path("runs/jat-mini"),
    processes: int | None = None,
    train_only: bool = False,
    evaluate: bool = True,
) -> None:
    """Make jat-mini of gato-mini's episodes.

    Args:
        steps: Updates.
        minutes: Time for updates, in place of a number of steps.
        rounds: Rounds of gato-mini whose labelled episodes are trained on too: what its own network
            played, with the experts' actions.
        root: Folder of gato-mini's datasets.
        work: Folder of the run, which is resumed where it has begun.
        processes: That train; None for one a core.
        train_only: Train in this process, and do not play.
        evaluate: Play all five suites in the end.
    """
    if train_only:
        torch.set_num_threads(1)
        TrainRun(jat_settings(root, work, rounds=rounds, steps=steps, minutes=minutes)).train()
        return
    count = processes or os.cpu_count() or 1
    gato_mini.train_in_parallel(MODULE, count, *sys.argv[1:], "--train-only")
    if evaluate:
        policy = str(work / RUN_CHECKPOINT)
        bench(work / "scores", "--suite", "all", "--episodes", "20", "--policy", policy)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
