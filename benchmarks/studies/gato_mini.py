"""The recipe of ``gato-mini``: one command from nothing to the shipped checkpoint.

    python -m benchmarks.studies.gato_mini                # all rounds, then all five suites
    python -m benchmarks.studies.gato_mini --rounds 0     # the experts' own episodes alone
    python -m benchmarks.studies.gato_mini --rounds 0 --player gato-mini --rows 192 --minutes 60
                                                          # from fresh weights, on a GPU
    python -m benchmarks.studies.gato_mini --only-round 2 --rows 384 --minutes 5
                                                          # one more round, on a GPU
    python -m benchmarks.studies.gato_mini --first-round 4 --player gato-mini
                                                          # one more round of the shipped network
    python -m benchmarks.studies.gato_mini --dry-run      # what would be drawn from the shards

Round 0 learns from the experts' episodes, played under noise. In each later round the network
plays, the experts say what they would have done in the states that it came to (DAgger, arXiv
1011.0686), and training continues with these episodes too; the further a task is from its expert,
the more of it is drawn. With a ``player``, an earlier network, round 0 has such episodes too; a
later ``first_round`` begins with its weights, and needs no episodes of the rounds before. Every
stage can be stopped and run again: it is resumed where it was.

* :mod:`benchmarks.studies.recipe_episodes` -- what is learned from.
* :func:`shared_settings`, :func:`round_settings` -- what is trained on it, by the code of
  ``gato-gym train``: any family of networks, and gato-mini's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import tyro
from rich.console import Console

from benchmarks.studies.recipe_episodes import (
    collections,
    datasets,
    emphasis,
    labelled_collections,
)
from gato_gym.commands.common import exit_status
from gato_gym.terminal import new_console
from policies.collection.collect import collect
from policies.gato.checkpoint_folder import RUN_CHECKPOINT
from policies.threads import ONE_THREAD
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

COPIES = 3
"""Copies of each episode under the symmetries of its task, which BabyAI's have."""

WEIGHTS = {"atari": 0.34, "babyai": 0.3, "dm_control": 0.12, "metaworld": 0.14, "mujoco": 0.1}
"""Share of the tokens by suite, by how many updates each needs."""

LATER_WEIGHTS = {
    "atari": 0.26, "babyai": 0.47, "dm_control": 0.11, "metaworld": 0.08, "mujoco": 0.08,
}  # fmt: skip
"""The same in later rounds, for more of the suites that are further from their experts."""

PROMPT_SHARES = {"babyai": 0.05, "metaworld": 0.1, "mujoco": 0.1, "dm_control": 0.1, "atari": 0.0}
"""Share of a suite's documents that carry a prompt, in place of the task's learned embedding."""

NETWORK = {
    "width": 192, "heads": 3, "feed_forward": 384, "vector_hidden": 384, "patch_channels": 32,
    "continuous_head": "regression",
}  # fmt: skip

STEPS = (2400, 800, 2600, 4200, 1500)
"""Updates of each round."""

ROUNDS = len(STEPS) - 1
"""Rounds after the first."""

AT_FULL_RATES = (0, 3)
"""Rounds that train as if from fresh weights; the short ones at lower rates."""

USUAL_ROWS, MOST_RATE = 48, 2.0
"""Packed sequences of a batch, and the most by which larger ones raise the rates of later rounds,
in proportion to the root of their number."""

LENGTH, LONGER = 128, 4
"""Tokens of a packed sequence, and how many times longer and fewer they are from the last round on,
for what BabyAI remembers of a long search."""


def shared_settings(
    root: Path,
    output: Path,
    *,
    number: int,
    steps: int | None,
    minutes: float | None,
    player: str | None = None,
    first: int = 0,
    factors: Mapping[str, float],
) -> TrainSettings:
    """What any family of networks is trained with: episodes, and how often they are drawn.

    Arguments as in :func:`round_settings`, but for the folder of the run, ``output``.
    """
    return TrainSettings(
        datasets=datasets(root, number, player=player, first=first),
        output=output,
        steps=steps,
        minutes=minutes,
        group_by="suite",
        adaptive="none",
        augment=COPIES,
        keep=0.0,
        weights=LATER_WEIGHTS if number else WEIGHTS,
        emphasis=factors,
        precision="auto",
        workers=os.cpu_count() or 1,
        keep_every=400,
        score_every=0,
    )


def round_settings(
    root: Path,
    work: Path,
    *,
    number: int = 0,
    steps: int | None = STEPS[0],
    minutes: float | None = None,
    rows: int = USUAL_ROWS,
    player: str | None = None,
    first: int = 0,
    factors: Mapping[str, float] = {},
) -> TrainSettings:
    """What a round trains.

    Args:
        root: Folder of the datasets.
        work: Folder of all rounds.
        number: Number of the round.
        steps: Updates; None for as many as fit the minutes.
        minutes: Time for updates, where no steps are given.
        rows: Packed sequences of a batch.
        player: The earlier network of the first round's labelled episodes; None has none.
        first: The round that is trained first: one after round 0 starts from the player's weights.
        factors: See :func:`emphasis`.
    """
    settings = replace(
        shared_settings(
            root,
            work / f"round-{number}",
            number=number,
            steps=steps,
            minutes=minutes,
            player=player,
            first=first,
            factors=factors,
        ),
        network=NETWORK,
        prompt_shares=PROMPT_SHARES,
        task_embeddings=True,
        options={"actions": "parallel"},
        rows=rows,
        length=LENGTH,
        attention="dense",
    )
    if number >= ROUNDS:
        settings = replace(settings, rows=max(1, rows // LONGER), length=LENGTH * LONGER)
    if number:
        settings = replace(settings, start=_before(work, number, player, first))
    if number in AT_FULL_RATES:
        return settings
    factor = min(MOST_RATE, (rows / USUAL_ROWS) ** 0.5)
    rates = {"rate": 1e-3 * factor, "matrix_rate": 2e-3 * factor, "cooldown": 0.8}
    return replace(settings, optimiser_options=rates)


def _before(work: Path, number: int, player: str | None, first: int) -> str | None:
    """The network before a round, which plays and is trained further; None for none."""
    return player if number == first else str(work / f"round-{number - 1}" / RUN_CHECKPOINT)


def train_in_parallel(module: str, processes: int, *arguments: str) -> None:
    """Train with one process a GPU, or a core: faster than one process of many threads.

    Args:
        module: The command that each process runs.
        processes: How many, where there is no GPU.
        arguments: The command's.

    Raises:
        subprocess.CalledProcessError: It ended with an error, or was interrupted.
    """
    count = torch.cuda.device_count() or processes
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(count), "-m", module, *arguments,
    ]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, **ONE_THREAD})


def _collect(
    root: Path,
    work: Path,
    number: int,
    player: str | None,
    first: int,
    *,
    processes: int,
    console: Console,
) -> None:
    """Collect what round ``number`` has beside the rounds before."""
    playing = _before(work, number, player, first)
    planned = collections(root) if number == first else []
    planned += [] if playing is None else labelled_collections(root, number, playing, first=first)
    for tasks, plays in planned:
        collect(tasks, plays, workers=processes, console=console)


def make(
    *,
    rounds: int = ROUNDS,
    first_round: int = 0,
    steps: tuple[int, ...] = STEPS,
    minutes: float | None = None,
    rows: int = USUAL_ROWS,
    player: str | None = None,
    root: Path = Path("data"),
    work: Path = Path("runs/gato-mini"),
    processes: int | None = None,
    only_round: int | None = None,
    collect_only: bool = False,
    evaluate: bool = True,
    dry_run: bool = False,
) -> None:
    """Make gato-mini from nothing.

    Args:
        rounds: Rounds in which the network plays and the experts label, after the first.
        first_round: Round to begin with, one after round 0 from the weights of ``player``.
        steps: Updates of each round; further rounds have as many as the last.
        minutes: Time for updates of each round, in place of the numbers of steps.
        rows: Packed sequences of a batch.
        player: Earlier checkpoint that plays, while the experts label, before the first round; None
            has none, as only round 0 can.
        root: Folder of the datasets.
        work: Folder of the runs, one for each round.
        processes: That collect and train; None for one a core.
        only_round: Train this round alone, on what has been collected.
        collect_only: Collect and do not train, for which the network of a round's player must be
            there; with ``only_round``, for this round alone.
        evaluate: Play all five suites in the end.
        dry_run: Print the mixture alone, of the first round or of ``only_round``.

    Raises:
        ValueError: A later round is the first and there is no player, or it is after the last.
    """
    if first_round and player is None:
        raise ValueError(
            f"first_round is {first_round} and there is no player: name the network that it starts "
            "from, such as --player gato-mini"
        )
    if not 0 <= first_round <= rounds:
        raise ValueError(f"first_round is {first_round}: expected 0 to {rounds}, the last round")
    console, count = new_console(soft_wrap=True), processes or os.cpu_count() or 1
    if only_round is not None or dry_run:
        number = first_round if only_round is None else only_round
        if collect_only:
            _collect(root, work, number, player, first_round, processes=count, console=console)
            return
        torch.set_num_threads(1 if "LOCAL_RANK" in os.environ else count)
        settings = round_settings(
            root,
            work,
            number=number,
            steps=None if minutes else steps[min(number, len(steps) - 1)],
            minutes=minutes,
            rows=rows,
            player=player,
            first=first_round,
            factors=emphasis(root, number, player=player, first=first_round),
        )
        run = TrainRun(settings)
        run.describe() if dry_run else run.train()
        return
    for number in range(first_round, rounds + 1):
        _collect(root, work, number, player, first_round, processes=count, console=console)
        if not collect_only:
            round_only = ("--only-round", str(number))
            train_in_parallel("benchmarks.studies.gato_mini", count, *sys.argv[1:], *round_only)
    if evaluate and not collect_only:
        command = [sys.executable, "-m", "benchmarks.run", "--suite", "all", "--episodes", "50"]
        where = ["--policy", str(work / f"round-{rounds}"), "--output", "results/gato-mini"]
        subprocess.run([*command, *where], check=True)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(make)))
