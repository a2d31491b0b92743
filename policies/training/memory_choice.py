"""What a task of one's own remembers, found out by training briefly with each.

* :func:`prepare_run` -- a run whose tasks remember what served them best in a trial.

Which memory suits an environment cannot be read off its spaces (docs/memory.md). So a long enough
run spends a share of its updates on a trial with each of :data:`MEMORIES`, and the rest on the best
one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from gato_gym.files.atomic_io import write_json
from gato_gym.files.bounded_io import as_type, read_json
from policies.training.checkpoint_scorer import PlayedTask
from policies.training.data.datasets import DatasetTask, registered_task
from policies.training.run import TrainRun, run_state
from policies.training.settings import TrainSettings

MEMORIES = ("none", "observations", "all")
"""What is tried; "all" only where play decides, because a network that sees its past actions lowers
the held-out loss by repeating them."""

TRIAL_SHARE, SHORTEST_TRIAL = 0.1, 50
"""Share of a run's updates that each trial has, and how many it has at least: shorter ones would
say nothing, so that a run which could not afford them tries nothing."""

EPISODES, HELD_OUT, BATCHES = 10, 0.1, 8
"""Episodes that are played after a trial; where a task cannot be played, the share of its episodes
that the trial's loss is measured on, and in how many batches."""

FEWEST_EPISODES, LOWER_LOSS = 20, 0.5
"""Episodes of a task from which on some are held out, and the share of the usual memory's loss that
another one's has to be below: losses a third lower have gone with worse play (docs/memory.md)."""


def prepare_run(settings: TrainSettings, console: Console | None = None) -> TrainRun:
    """A run, after trials of what its tasks should remember where the settings leave that open.

    Tried are tasks that are no registered ones, and which the checkpoint that the run starts from
    does not know. The trials are in ``trials/`` of the run's folder. What was chosen is kept in
    ``training/memory.json``, and a run that is resumed keeps to it.

    Args:
        settings: As in :class:`~policies.training.run.TrainRun`; with ``memory``, or for so few
            updates that trials would be too short, nothing is tried.
        console: Where it reports.

    Raises:
        FileNotFoundError, ValueError: As :class:`~policies.training.run.TrainRun`.
        KeyboardInterrupt: A trial was stopped; the same settings resume it.
    """
    state = run_state(settings.output)
    place = state / "memory.json"
    kept = None
    if place.exists() and settings.memory is None:
        kept = as_type(_Kept, read_json(place), str(place))
    if kept is not None and kept.memories:
        return _main_run(settings, console, kept)
    run = TrainRun(settings, console)
    tasks = [] if settings.memory is not None else _open_tasks(run)
    steps = run.config.steps if kept is None or settings.steps else kept.steps
    length = round(TRIAL_SHARE * steps)
    if (state / "config.json").exists() or not tasks or length < SHORTEST_TRIAL:
        return run
    players = _players(run, tasks)
    tried = [m for m in MEMORIES if any(_suits(m, task, players) for task in tasks)]
    kept = _Kept(steps, steps - length * len(tried))
    _keep(run, kept)  # with minutes, a trial that is resumed has as many updates
    _keep(run, kept := dataclasses.replace(kept, memories=_chosen(run, tasks, tried, length)))
    return _main_run(settings, console, kept, run.found_tasks)


@dataclasses.dataclass(frozen=True)
class _Kept:
    """What is written down: the updates there are, those left, and the memories once chosen."""

    steps: int
    left: int
    memories: dict[str, str] = dataclasses.field(default_factory=dict)


def _keep(run: TrainRun, kept: _Kept) -> None:
    if not run.ranks.rank:
        write_json(run.state / "memory.json", dataclasses.asdict(kept))


def _main_run(
    settings: TrainSettings,
    console: Console | None,
    kept: _Kept,
    tasks: Sequence[DatasetTask] | None = None,
) -> TrainRun:
    """The run with what was chosen, on the updates that the trials have left."""
    if settings.steps in (None, kept.steps):
        settings = dataclasses.replace(settings, steps=kept.left, minutes=None)
    return TrainRun(settings, console, tasks=tasks, memories=kept.memories)


def _suits(memory: str, task: DatasetTask, players: Mapping[str, PlayedTask]) -> bool:
    """Whether a memory is tried with a task."""
    return memory != "all" or (task.id in players and task.options.actions != "parallel")


def _players(run: TrainRun, tasks: Sequence[DatasetTask]) -> dict[str, PlayedTask]:
    """Those of the tasks that can be played here."""
    players = {}
    for task in tasks:
        try:
            players[task.id] = run.playable(task)
        except ValueError:
            continue
    return players


def _open_tasks(run: TrainRun) -> list[DatasetTask]:
    """The tasks of a run of which nothing says what they should remember."""
    if run.settings.family != "gato" or "memory" in run.settings.options:
        return []
    taken_up = {task.id for task in run.all_tasks if not any(task is t for t in run.found_tasks)}
    return [
        task for task in run.tasks if task.id not in taken_up and registered_task(task.id) is None
    ]


def _chosen(
    run: TrainRun, tasks: Sequence[DatasetTask], tried: Sequence[str], length: int
) -> dict[str, str]:
    """What each of the tasks should remember."""
    say = partial(run.console.print, highlight=False, markup=False)
    say(
        f"{len(tried)} trials of {length} updates show what {', '.join(task.id for task in tasks)} "
        f"should remember: {', '.join(tried)}; --memory with one of them tries nothing"
    )
    results = {memory: _trial(run, tasks, memory, length) for memory in tried}
    memories = {}
    for task in tasks:
        usual = task.options.memory
        trials = {m: trial[task.id] for m, trial in results.items() if task.id in trial}
        memories[task.id] = _best(trials, usual)
        shown = ", ".join(f"{memory} {_shown(trial)}" for memory, trial in trials.items())
        say(f"memory of {task.id!r}: {shown}; {memories[task.id]!r} it is")
    return memories


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a trial showed of a task.

    Attributes:
        returns: float64 ``[E]``, of the same episodes in each trial; empty where none was played.
        loss: Mean loss of held-out actions; NaN where none were held out.
    """

    returns: NDArray[np.float64]
    loss: float = float("nan")


def _best(trials: Mapping[str, Trial], usual: str) -> str:
    """The memory that did best; the usual one within the difference's standard error."""
    first = trials[usual]
    if not len(first.returns):
        best = min(trials, key=lambda memory: trials[memory].loss)
        return best if trials[best].loss < LOWER_LOSS * first.loss else usual
    best = max(trials, key=lambda memory: trials[memory].returns.mean())
    gains = trials[best].returns - first.returns
    return best if gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)) else usual


def _shown(trial: Trial) -> str:
    if len(trial.returns):
        return f"returns {trial.returns.mean():.2f} in {len(trial.returns)} episodes"
    return "is unknown" if np.isnan(trial.loss) else f"has a held-out loss of {trial.loss:.4f}"


def _trial(
    run: TrainRun, tasks: Sequence[DatasetTask], memory: str, length: int
) -> dict[str, Trial]:
    """Train briefly with a memory, and see what comes of it, of each task that it is tried with."""
    players = _players(run, tasks)
    tasks = [task for task in tasks if _suits(memory, task, players)]
    enough = all(task.counts[0] >= FEWEST_EPISODES for task in run.tasks)
    held_out = HELD_OUT if len(players) < len(tasks) and enough else 0.0
    asked = dataclasses.replace(
        run.settings,
        output=run.settings.output / "trials" / memory,
        shards=run.settings.shards or run.settings.output / "shards",
        steps=length, minutes=None, until=None, keep_every=None, held_out=held_out,
        score_every=0, score_tasks=(), tensorboard=False, wandb=None,
    )  # fmt: skip
    memories = {task.id: memory for task in tasks}
    trial = TrainRun(asked, run.console, tasks=run.found_tasks, memories=memories)
    checkpoint = trial.train()
    losses = _held_out_losses(trial) if held_out else {}
    results = {}
    for task in tasks:
        returns = np.zeros(EPISODES if task.id in players else 0)
        if len(returns) and not run.ranks.rank:
            with torch.random.fork_rng():
                returns[:] = players[task.id].returns(str(checkpoint), EPISODES)
        returns = run.ranks.sum(torch.from_numpy(returns)).numpy()
        results[task.id] = Trial(returns, losses.get(task.id, float("nan")))
    return results


def _held_out_losses(run: TrainRun) -> dict[str, float]:
    """Mean loss of each task's held-out actions."""
    network = run.pipeline.averaged().eval()
    packer = run.family.packer(run.config, run.held_out, run.texts)
    sums = torch.zeros(len(packer.sources), 2)
    with torch.no_grad():
        for index in range(BATCHES):
            batch = packer.batch(index)
            report = run.family.loss(network, batch, run.config, tasks=len(packer.sources))
            sums += report.tasks
    pairs = zip(packer.sources, sums.tolist(), strict=True)
    return {name: loss / weight for name, (weight, loss) in pairs if weight}
