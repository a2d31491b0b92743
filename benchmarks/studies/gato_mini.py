"""The recipe of ``gato-mini``: one command from nothing to the shipped checkpoint.

    python -m benchmarks.studies.gato_mini                # all rounds, then all five suites
    python -m benchmarks.studies.gato_mini --rounds 0     # the experts' own episodes alone
    python -m benchmarks.studies.gato_mini --rounds 0 --player gato-mini --rows 192 --minutes 60
                                                          # from fresh weights, on a GPU
    python -m benchmarks.studies.gato_mini --only-round 2 --rows 384 --minutes 5
                                                          # one more round, on a GPU
    python -m benchmarks.studies.gato_mini --dry-run      # what would be drawn from the shards

Round 0 learns from the experts' episodes, played under noise. In each later round the network
plays, the experts say what they would have done in the states that it came to (DAgger, arXiv
1011.0686), and training continues with these episodes too; the further a task is from its expert,
the more of it is drawn. With a ``player``, an earlier network, round 0 has such episodes too. Every
stage can be stopped and run again: it is resumed where it was.

* :func:`collections` -- what the experts play.
* :func:`labelled_collections` -- what the network plays and the experts label.
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

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.references import measured
from gato_gym.commands.common import exit_status
from gato_gym.episodes.minari_datasets import find_minari, returns_of
from gato_gym.tasks import Task, list_tasks
from gato_gym.terminal import new_console
from policies.collection.collect import collect
from policies.collection.jobs import CollectSettings, dataset_id
from policies.collection.recorder import RecordSettings
from policies.experts import has_expert
from policies.gato.checkpoint import read_tasks
from policies.gato.checkpoint_folder import RUN_CHECKPOINT, locate_checkpoint
from policies.threads import ONE_THREAD
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

EXPERT_PLAY = {
    "atari": CollectSettings(
        Path(),
        RecordSettings(noise=0.1, keep=0.0, most_steps=4_000),
        steps=20_000,
        expert_episodes=2,  # some last 27,000 steps
    ),
    "babyai": CollectSettings(  # as many episodes of long levels: each has its own mission
        Path(), RecordSettings(noise=0.2), episodes=1_000, steps=20_000, expert_episodes=5
    ),
    "dm_control": CollectSettings(  # many starts: of finger and reacher each has its own target
        Path(),
        RecordSettings(noise=0.3, keep=0.0, most_steps=300),
        steps=60_000,
        expert_episodes=5,
    ),
    "metaworld": CollectSettings(
        Path(),
        RecordSettings(noise=0.8, steps_after_success=40),
        episodes=50,
        expert_episodes=5,
    ),
    "mujoco": CollectSettings(
        Path(), RecordSettings(noise=0.3, keep=0.0), steps=45_000, expert_episodes=5
    ),
}
"""What the experts play of each task, by suite."""

SUITES = tuple(EXPERT_PLAY)

LABELLED_STEPS = {"babyai": 5_000, "dm_control": 10_000, "mujoco": 4_000}
"""Steps that the network plays of each task in a round, at least, in the suites in which it does.
"""

MOST_STEPS = {"babyai": 256, "dm_control": 250, "mujoco": 1_000}
"""Steps after which an episode of the network is left, as it may be stuck."""

SHORTENED = ("dm_control",)
"""Suites whose whole episodes are longer than :data:`MOST_STEPS`: the network's are compared with
as many steps of the expert's."""

WEIGHTS = {"atari": 0.34, "babyai": 0.3, "dm_control": 0.12, "metaworld": 0.14, "mujoco": 0.1}
"""Share of the tokens by suite, by how many updates each needs."""

LATER_WEIGHTS = {"atari": 0.2, "babyai": 0.42, "dm_control": 0.2, "metaworld": 0.08, "mujoco": 0.1}
"""The same in later rounds, for more of the suites that are further from their experts."""

PROMPT_SHARES = {"babyai": 0.05, "metaworld": 0.1, "mujoco": 0.1, "dm_control": 0.1, "atari": 0.0}
"""Share of a suite's documents that carry a prompt, in place of the task's learned embedding."""

NETWORK = {
    "width": 192, "heads": 3, "feed_forward": 384, "vector_hidden": 384, "patch_channels": 32,
    "continuous_head": "regression",
}  # fmt: skip

STEPS = (2400, 800, 2600, 1300)
"""Updates of each round."""

ROUNDS = len(STEPS) - 1
"""Rounds after the first."""

USUAL_ROWS, MOST_RATE = 48, 2.0
"""Packed sequences of a batch, and the most by which larger ones raise the rates of later rounds,
in proportion to the root of their number."""

MOST_EMPHASIS = 4.0
"""Share of a task whose network is as good as random play, over that of one as good as its expert.
"""


def known_tasks(suite: str) -> list[Task]:
    """A suite's tasks that have an expert."""
    return [task for task in list_tasks(suite) if has_expert(task.id)]


def collections(root: Path) -> list[tuple[list[Task], CollectSettings]]:
    """What the experts play: tasks with one collection each."""
    return [
        (known_tasks(suite), replace(settings, root=root))
        for suite, settings in EXPERT_PLAY.items()
    ]


def labelled_tasks(suite: str, player: str | None) -> list[Task]:
    """The known tasks of a suite that an earlier network plays; None plays all of them."""
    if player is None:
        return known_tasks(suite)
    names = read_tasks(locate_checkpoint(player))
    return [task for task in known_tasks(suite) if task.id in names]


def labelled_collections(
    root: Path, number: int, player: str
) -> list[tuple[list[Task], CollectSettings]]:
    """What a network plays, and the experts label, in round ``number``.

    Args:
        root: Folder of the datasets.
        number: The round: in round 0 an earlier network plays the tasks that it knows.
        player: Its checkpoint.
    """
    record = RecordSettings(seed=number, player=player, steps_after_success=40)
    folder = labelled_folder(root, number)
    return [
        (
            labelled_tasks(suite, None if number else player),
            CollectSettings(folder, replace(record, most_steps=MOST_STEPS[suite]), steps=steps),
        )
        for suite, steps in LABELLED_STEPS.items()
    ]


def labelled_folder(root: Path, number: int) -> Path:
    """Where the episodes of a round are, before each of which the network is another."""
    return root / f"round-{number}"


def evenly(tasks: list[Task], most: int | None) -> list[Task]:
    """At most so many of the tasks, at equal distances in their order; None for all."""
    if most is None or most >= len(tasks):
        return tasks
    return [tasks[i * len(tasks) // most] for i in range(most)]


def datasets(
    root: Path,
    number: int = 0,
    suites: tuple[str, ...] = SUITES,
    *,
    player: str | None = None,
    most_tasks: int | None = None,
) -> tuple[str, ...]:
    """Paths of all episodes that round ``number`` learns from, with an earlier player's.

    Args:
        root: Folder of the datasets.
        number: The round.
        suites: Whose tasks.
        player: The earlier network of round 0's labelled episodes; None has none.
        most_tasks: Tasks of each suite, see :func:`evenly`.
    """
    chosen = {suite: evenly(known_tasks(suite), most_tasks) for suite in suites}
    paths = [root / dataset_id(task) for tasks in chosen.values() for task in tasks]
    labelled = RecordSettings(player="")
    for before in range(1 if player is None else 0, number + 1):
        folder = labelled_folder(root, before)
        for suite in (suite for suite in suites if suite in LABELLED_STEPS):
            tasks = labelled_tasks(suite, None if before else player)
            tasks = [task for task in tasks if task in chosen[suite]]
            paths += [folder / dataset_id(task, labelled) for task in tasks]
    return tuple(map(str, paths))


def emphasis(root: Path, number: int, *, player: str | None = None) -> dict[str, float]:
    """How much more of a task is drawn, by what the network's episodes of a round returned.

    These are episodes of training seeds. A task as good as its expert has 1, one as good as random
    play :data:`MOST_EMPHASIS`; an episode that was left after :data:`MOST_STEPS` steps counts as it
    is, see also :data:`SHORTENED`, and a task without references as one that is half as good.
    Arguments as in :func:`labelled_collections`.
    """
    factors = {}
    for suite in LABELLED_STEPS if number or player is not None else ():
        references = measured(suite)
        for task in labelled_tasks(suite, None if number else player):
            name = dataset_id(task, RecordSettings(player=""))
            returns = returns_of(find_minari(labelled_folder(root, number) / name))
            scores: NDArray[np.float64] | None
            if suite in SHORTENED:
                recorded = find_minari(root / dataset_id(task))
                scores = returns / returns_of(recorded, most_steps=MOST_STEPS[suite]).mean()
            else:
                known = references.get(task.id)
                scores = None if known is None else known.normalise(returns)
            score = 0.5 if scores is None else float(np.clip(scores.mean(), 0.0, 1.0))
            factors[task.id] = 1 + (MOST_EMPHASIS - 1) * (1 - score)
    return factors


def shared_settings(
    root: Path,
    output: Path,
    *,
    number: int,
    steps: int | None,
    minutes: float | None,
    player: str | None = None,
    factors: Mapping[str, float],
) -> TrainSettings:
    """What any family of networks is trained with: episodes, and how often they are drawn.

    Arguments as in :func:`round_settings`, but for the folder of the run, ``output``.
    """
    return TrainSettings(
        datasets=datasets(root, number, player=player),
        output=output,
        steps=steps,
        minutes=minutes,
        group_by="suite",
        augment=1,
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
        player: The earlier network of round 0's labelled episodes; None has none.
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
            factors=factors,
        ),
        network=NETWORK,
        prompt_shares=PROMPT_SHARES,
        task_embeddings=True,
        options={"actions": "parallel"},
        rows=rows,
        length=128,
        attention="dense",
    )
    if not number:
        return settings
    start = str(work / f"round-{number - 1}" / RUN_CHECKPOINT)
    factor = min(MOST_RATE, (rows / USUAL_ROWS) ** 0.5)
    rates = {"rate": 1e-3 * factor, "matrix_rate": 2e-3 * factor, "cooldown": 0.8}
    return replace(settings, start=start, optimiser_options=rates)


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
    root: Path, work: Path, number: int, player: str | None, *, processes: int, console: Console
) -> None:
    """Collect what round ``number`` has beside the rounds before."""
    playing = str(work / f"round-{number - 1}" / RUN_CHECKPOINT) if number else player
    planned = [] if number else collections(root)
    planned += [] if playing is None else labelled_collections(root, number, playing)
    for tasks, plays in planned:
        collect(tasks, plays, workers=processes, console=console)


def make(
    *,
    rounds: int = ROUNDS,
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
        steps: Updates of each round; further rounds have as many as the last.
        minutes: Time for updates of each round, in place of the numbers of steps.
        rows: Packed sequences of a batch.
        player: Earlier checkpoint that plays, while the experts label, before the first round.
        root: Folder of the datasets.
        work: Folder of the runs, one for each round.
        processes: That collect and train; None for one a core.
        only_round: Train this round alone, on what has been collected.
        collect_only: Collect and do not train, for which the network of a round's player must be
            there; with ``only_round``, for this round alone.
        evaluate: Play all five suites in the end.
        dry_run: Print the mixture alone, of the first round or of ``only_round``.
    """
    console, count = new_console(soft_wrap=True), processes or os.cpu_count() or 1
    if only_round is not None or dry_run:
        number = only_round or 0
        if collect_only:
            _collect(root, work, number, player, processes=count, console=console)
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
            factors=emphasis(root, number, player=player),
        )
        run = TrainRun(settings)
        run.describe() if dry_run else run.train()
        return
    for number in range(rounds + 1):
        _collect(root, work, number, player, processes=count, console=console)
        if not collect_only:
            round_only = ("--only-round", str(number))
            train_in_parallel("benchmarks.studies.gato_mini", count, *sys.argv[1:], *round_only)
    if evaluate and not collect_only:
        command = [sys.executable, "-m", "benchmarks.run", "--suite", "all", "--episodes", "50"]
        where = ["--policy", str(work / f"round-{rounds}"), "--output", "results/gato-mini"]
        subprocess.run([*command, *where], check=True)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(make)))
