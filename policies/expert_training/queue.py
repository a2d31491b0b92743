"""The trainings of many tasks: in which order, on how many cores, and where each stands.

* :func:`chosen` -- the tasks of a suite or a pattern that have recipes, the cheapest first.
* :class:`TrainQueue` -- trains those whose expert is missing or below its bar.
* :func:`standings` -- where the training of each task is.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from gato_gym.terminal import new_console
from policies.expert_training.recipes import all_recipes, recipe_for
from policies.expert_training.settings import QueueSettings
from policies.expert_training.shipping import (
    EXPERT_FOLDER,
    episodes_to_score,
    ship,
    shipped_share,
)
from policies.expert_training.trainer import TrainSettings, train
from policies.expert_training.training_state import STATE_FILE, load_state
from policies.experts.store import shipped_folder
from policies.processes import JobPool, WorkerFailure

FIRST_PASS = 400_000
"""Actions that a task without any expert gets before others get more: most games beat chance by
then, and an expert that does is worth more than none."""


def chosen(suite: str | None, pattern: str | None) -> list[str]:
    """Task ids in the order of the table of recipes.

    Raises:
        UnknownTaskError: No such suite, or the pattern matches no task.
        ValueError: None of the tasks has a recipe.
    """
    from gato_gym.tasks import list_tasks

    matching = {task.id for task in list_tasks(suite, pattern)}
    ordered = [name for name in all_recipes() if name in matching]
    if not ordered:
        recipe_for(min(matching))
    return ordered


@dataclass(frozen=True)
class Standing:
    """Where the training of a task is.

    Attributes:
        task: Task id.
        steps: Actions that its training has done.
        recipe_steps: Actions that its recipe has.
        best: The best return that was evaluated; None before the first.
        bar: Return that its expert is meant to reach.
        minutes: Minutes of a core, so far.
        shipped: Share of the bar that the package's expert has; None where there is none.
        finished: Why the training has ended; None while it can be resumed.
    """

    task: str
    steps: int
    recipe_steps: int
    best: float | None
    bar: float
    minutes: float
    shipped: float | None
    finished: str | None


def standings(tasks: Sequence[str], root: Path) -> list[Standing]:
    """Where each task is; trainings are in ``root / task``."""
    rows = []
    for task in tasks:
        recipe, path = recipe_for(task), root / task / STATE_FILE
        state = load_state(path)[0] if path.exists() else None
        rows.append(
            Standing(
                task,
                steps=state.steps if state else 0,
                recipe_steps=recipe.steps,
                best=state.best if state else None,
                bar=recipe.bar,
                minutes=state.seconds / 60 if state else 0.0,
                shipped=shipped_share(task),
                finished=state.finished if state else None,
            )
        )
    return rows


@dataclass(frozen=True)
class TrainQueue:
    """Trainings one after another, each as :func:`policies.expert_training.trainer.train` does.

    A single task is trained whatever is shipped. Among several, those without an expert come first,
    up to :data:`FIRST_PASS` actions; then those below their bar, up to their recipe's. Where a game
    has an expert and no training that could be resumed, its training begins with that expert.

    Attributes:
        tasks: Task ids, the first ones first.
        root: Trainings are in ``root / task``.
        settings: How they are trained.
    """

    tasks: Sequence[str]
    root: Path
    settings: QueueSettings = field(default_factory=QueueSettings)

    def run(self, console: Console) -> int:
        """Train what is not done; a training that fails is reported and the next one begins.

        Returns:
            0, or 1 when a training failed.
        """
        minutes = self.settings.minutes
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        if len(self.tasks) == 1:
            task = self.tasks[0]
            train_and_ship(self._training(task, None, deadline), self.settings.ships)
            folder = self.settings.output or self.root / task
            console.print(f"the expert is in {folder / EXPERT_FOLDER}", highlight=False)
            return 0
        failed = self._run_all(deadline, console)
        if failed:
            console.print(f"failed: {', '.join(failed)}", style="red")
        return 1 if failed else 0

    def _stages(self, console: Console) -> Iterator[tuple[str, int]]:
        """Tasks and the actions up to which each is to be trained, in turn."""
        wanting = []
        for task in self.tasks:
            share = shipped_share(task)
            if share is not None and share >= 1.0:
                console.print(f"{task}: its expert comes with the package", highlight=False)
                continue
            wanting.append(task)
            if share is None and self._limit(task) > FIRST_PASS:
                yield task, FIRST_PASS
        for task in wanting:
            if (shipped_share(task) or 0.0) < 1.0:
                yield task, self._limit(task)

    def _limit(self, task: str) -> int:
        return int(self.settings.steps or recipe_for(task).steps)

    def _training(self, task: str, until: int | None, deadline: float | None) -> TrainSettings:
        recipe, folder = recipe_for(task), self.settings.output or self.root / task
        recipe = dataclasses.replace(recipe, steps=self._limit(task))
        is_new = not (folder / STATE_FILE).exists()
        has_expert = task.startswith("atari-") and shipped_folder(task).is_dir()
        if self.settings.from_expert or (len(self.tasks) > 1 and is_new and has_expert):
            recipe = dataclasses.replace(recipe, start=task)
        return TrainSettings(
            task,
            folder,
            recipe,
            seed=self.settings.seed,
            until=until,
            seconds=None if deadline is None else max(deadline - time.monotonic(), 0.0),
            score_episodes=episodes_to_score(task),
            tensorboard=self.settings.tensorboard,
            callback=self.settings.callback,
            device=self.settings.device,
            threads=self.settings.threads,
        )

    def _run_all(self, deadline: float | None, console: Console) -> list[str]:
        """Run all stages, each in a process of its own; returns the tasks that failed."""
        failed: list[str] = []
        count = 0 if self.settings.jobs == 1 else self.settings.jobs
        with JobPool(_trainer, self.settings.ships, count=count, fresh=True) as pool:
            for training, result in pool.run(self._trainings(failed, deadline, console)):
                if isinstance(result, WorkerFailure):
                    failed.append(training.task)
                    message = f"{training.task}: failed, {result.message}"
                    console.print(message, style="red", markup=False, soft_wrap=True)
        return failed

    def _trainings(
        self, failed: Sequence[str], deadline: float | None, console: Console
    ) -> Iterator[TrainSettings]:
        """What is trained in turn, until the time is over; nothing of a task that has failed."""
        for task, until in self._stages(console):
            if deadline is not None and time.monotonic() >= deadline:
                return
            if task not in failed:
                yield self._training(task, until, deadline)


def _trainer(ships: bool) -> Callable[[TrainSettings], None]:
    return partial(train_and_ship, ships=ships)


def train_and_ship(settings: TrainSettings, ships: bool) -> None:
    """Run one training as far as its settings say, and ship what is better."""
    console = new_console()
    train(settings, console=console)
    late = settings.seconds is not None and settings.seconds <= 0
    if ships and not late:
        shipped = ship(settings.output, settings.task)
        if shipped is not None:
            console.print(f"{settings.task}: {shipped}", highlight=False, soft_wrap=True)
