"""The recipe of ``jat-mini``: JAT's network on the episodes of ``gato-mini``.

    python -m benchmarks.studies.gato_mini --no-evaluate  # the episodes, where they are not there
    python -m benchmarks.studies.jat_mini                 # trains, then plays all five suites

Both networks have learned from the same episodes and labels, are of nearly the same size, and are
trained by the code of ``gato-gym train``. JAT's has neither task embeddings nor prompts: it is what
``--family jat`` is by default.

It is trained in two stages. Of long stretches of an episode it learns to repeat its last action,
which is nearly always right there, and plays badly, as its own first action is then repeated. The
second stage has stretches of two timesteps, of which the first has no action before it; at play
the network sees the observation alone.

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

ROWS, LENGTHS = (24, 768), (256, 4)
"""Batches of each stage, a timestep being two tokens: of half as many timesteps as gato-mini's, and
of a quarter."""

STEPS = (1_500, 1_000)
"""Updates of each stage."""

CONTEXT = 2
"""Tokens of context at play: the observation alone."""

MODULE = "benchmarks.studies.jat_mini"


def jat_settings(
    root: Path,
    work: Path,
    *,
    stage: int,
    rounds: int = gato_mini.ROUNDS,
    steps: tuple[int, ...] = STEPS,
    minutes: float | None = None,
) -> TrainSettings:
    """What is trained.

    Args:
        root: Folder of gato-mini's datasets.
        work: Folder of both runs.
        stage: 0 or 1.
        rounds: Rounds of gato-mini whose labelled episodes are trained on too.
        steps: Updates of each stage.
        minutes: Time for updates, in place of the numbers of steps.
    """
    shared = gato_mini.shared_settings(
        root,
        work / f"stage-{stage}",
        number=rounds,
        steps=None if minutes else steps[stage],
        minutes=minutes,
        factors=recipe_episodes.emphasis(root, rounds),
    )
    return replace(
        shared,
        family="jat",
        rows=ROWS[stage],
        length=LENGTHS[stage],
        shards=work / "shards",
        start=str(work / "stage-0" / RUN_CHECKPOINT) if stage else None,
        network={"context_tokens": CONTEXT} if stage else {},
    )


def main(
    *,
    steps: tuple[int, int] = STEPS,
    minutes: float | None = None,
    rounds: int = gato_mini.ROUNDS,
    root: Path = Path("data"),
    work: Path = Path("runs/jat-mini"),
    processes: int | None = None,
    only_stage: int | None = None,
    evaluate: bool = True,
) -> None:
    """Make jat-mini of gato-mini's episodes.

    Args:
        steps: Updates of each stage.
        minutes: Time for updates of each stage, in place of the numbers of steps.
        rounds: Rounds of gato-mini whose labelled episodes are trained on too.
        root: Folder of gato-mini's datasets.
        work: Folder of the runs, one for each stage, which are resumed where they have begun.
        processes: That train; None for one a core.
        only_stage: Train this stage alone, in this process.
        evaluate: Play all five suites in the end.
    """
    if only_stage is not None:
        torch.set_num_threads(1)
        settings = jat_settings(
            root, work, stage=only_stage, rounds=rounds, steps=steps, minutes=minutes
        )
        TrainRun(settings).train()
        return
    count = processes or os.cpu_count() or 1
    for stage in range(len(STEPS)):
        gato_mini.train_in_parallel(MODULE, count, *sys.argv[1:], "--only-stage", str(stage))
    if evaluate:
        policy = str(work / f"stage-{len(STEPS) - 1}" / RUN_CHECKPOINT)
        bench(work / "scores", "--suite", "all", "--episodes", "20", "--policy", policy)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
