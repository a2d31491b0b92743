"""Trainings one after another.

* :func:`chosen` -- the tasks of a suite or a pattern that have recipes, the cheapest first.
* :class:`TrainQueue` -- trains those that lack a finished expert.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from policies.experts.networks import read_config, shipped_folder
from policies.experts.training.recipes import RECIPES, recipe_for
from policies.experts.training.trainer import EXPERT_FOLDER, TrainSettings, train


def chosen(suite: str | None, pattern: str | None) -> list[str]:
    """Task ids in the order of the table of recipes.

    Raises:
        UnknownTaskError: No such suite, or the pattern matches no task.
        ValueError: None of the tasks has a recipe.
    """
    from gato_gym.tasks import list_tasks

    found = {task.id for task in list_tasks(suite, pattern)}
    ordered = [name for name in RECIPES if name in found]
    if not ordered:
        recipe_for(min(found))
    return ordered


@dataclass(frozen=True)
class TrainQueue:
    """Trainings one after another, each as :func:`policies.experts.training.trainer.train` does.

    Attributes:
        tasks: Task ids, the first ones first.
        root: Trainings are in ``root / task``.
        output: The folder instead, of a single task.
        steps: Environment steps; None takes the recipe's.
        seed: Of every training.
        tensorboard: Whether to write its events.
    """

    tasks: Sequence[str]
    root: Path
    output: Path | None = None
    steps: int | None = None
    seed: int = 0
    tensorboard: bool = False

    def run(self, console: Console) -> int:
        """Train what is not done; a training that fails is told and the next one begins.

        Returns:
            0, or 1 when a training failed.
        """
        failed = []
        for task in self.tasks:
            if len(self.tasks) > 1 and _ships(task):
                console.print(f"{task}: its expert comes with the package", highlight=False)
                continue
            recipe = recipe_for(task)
            if self.steps is not None:
                recipe = dataclasses.replace(recipe, steps=self.steps)
            folder = self.output or self.root / task
            settings = TrainSettings(
                task, folder, recipe, seed=self.seed, tensorboard=self.tensorboard
            )
            try:
                train(settings, console=console)
            except Exception as error:
                if len(self.tasks) == 1:
                    raise
                failed.append(task)
                console.print(f"{task}: failed, {error!r}", style="red", markup=False)
                continue
            if len(self.tasks) == 1:
                console.print(f"the expert is in {folder / EXPERT_FOLDER}", highlight=False)
        if failed:
            console.print(f"failed: {', '.join(failed)}", style="red")
        return 1 if failed else 0


def _ships(task: str) -> bool:
    """Whether the package has an expert of the task at or above its bar."""
    folder = shipped_folder(task)
    if not folder.is_dir():
        return False
    score = read_config(folder).get("score")
    return score is not None and score["mean"] >= recipe_for(task).bar
