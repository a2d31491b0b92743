"""The recipe of ``jat-mini``: JAT's network on the episodes of ``gato-mini``.

    python -m benchmarks.studies.gato_mini --collect-only  # the episodes, where they are not there
    python -m benchmarks.studies.jat_mini                  # trains, then plays all five suites

Both networks have learned from the same episodes and labels, are of nearly the same size, and are
trained by the code of ``gato-gym train``. JAT's has neither task embeddings nor prompts: it is what
``--family jat`` is by default.

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

ROWS, LENGTH = 24, 256
"""A batch of half as many timesteps as gato-mini's: a timestep is two embeddings."""

MODULE = "benchmarks.studies.jat_mini"


def jat_settings(
    root: Path, work: Path, *, rounds: int, steps: int | None, minutes: float | None = None
) -> TrainSettings:
    """What is trained.

    Args:
        root: Folder of gato-mini's datasets.
        work: Folder of the run.
        rounds: Rounds of gato-mini whose labelled episodes are trained on too.
        steps: Updates; None for as many as fit the minutes.
        minutes: Time for updates, where no steps are given.
    """
    shared = gato_mini.shared_settings(
        root,
        work,
        number=rounds,
        steps=None if minutes else steps,
        minutes=minutes,
        factors=recipe_episodes.emphasis(root, rounds),
    )
    return replace(shared, family="jat", rows=ROWS, length=LENGTH)


def main(
    *,
    steps: int = 3000,
    minutes: float | None = None,
    rounds: int = gato_mini.ROUNDS,
    root: Path = Path("data"),
    work: Path = Path("runs/jat-mini"),
    processes: int | None = None,
    evaluate: bool = True,
) -> None:
    """Make jat-mini of gato-mini's episodes.

    Args:
        steps: Updates.
        minutes: Time for updates, in place of the number of steps.
        rounds: Rounds of gato-mini whose labelled episodes are trained on too.
        root: Folder of gato-mini's datasets.
        work: Folder of the run, which is resumed where it has begun.
        processes: That train; None for one a core.
        evaluate: Play all five suites in the end.
    """
    if "LOCAL_RANK" in os.environ:  # one of the processes that train
        torch.set_num_threads(1)
        TrainRun(jat_settings(root, work, rounds=rounds, steps=steps, minutes=minutes)).train()
        return
    gato_mini.train_in_parallel(MODULE, processes or os.cpu_count() or 1, *sys.argv[1:])
    if evaluate:
        policy = str(work / RUN_CHECKPOINT)
        bench(work / "scores", "--suite", "all", "--episodes", "20", "--policy", policy)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
