"""Trainings one after another.

* :func:`chosen` -- the tasks of a suite or a pattern that have recipes, the cheapest first.
* :func:`share_of_bar` -- how much of what it is meant to reach an expert has.
* :func:`ship` -- puts a finished expert into the package.
* :class:`TrainQueue` -- trains those that lack a finished expert.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gato_gym.atomic_io import appearing
from policies.expert_training.recipes import RECIPES, recipe_for
from policies.expert_training.trainer import CURVE_FILE, EXPERT_FOLDER, TrainSettings, train
from policies.experts.store import read_config, shipped_folder


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
    """Trainings one after another, each as :func:`policies.expert_training.trainer.train` does.

    Attributes:
        tasks: Task ids, the first ones first.
        root: Trainings are in ``root / task``.
        output: The folder instead, of a single task.
        steps: Environment steps; None takes the recipe's.
        seed: Of every training.
        tensorboard: Whether to write its events.
        device: Where PPO learns.
        from_expert: Whether to begin with the package's experts.
    """

    tasks: Sequence[str]
    root: Path
    output: Path | None = None
    steps: int | None = None
    seed: int = 0
    tensorboard: bool = False
    device: str = "cpu"
    from_expert: bool = False

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
            if self.from_expert:
                recipe = dataclasses.replace(recipe, start=task)
            folder = self.output or self.root / task
            settings = TrainSettings(
                task,
                folder,
                recipe,
                seed=self.seed,
                tensorboard=self.tensorboard,
                device=self.device,
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


LEAST_SHARE = 0.8
"""An expert with less of its bar is no expert, and is not shipped."""


def share_of_bar(mean: float, bar: float) -> float:
    """A mean return in parts of a bar; below zero, a smaller magnitude is the better return.

    Example:
        >>> share_of_bar(400, 800), share_of_bar(-10, -5)
        (0.5, 0.5)
    """
    if bar > 0:
        return mean / bar
    return bar / mean if mean < 0 else float("inf")


def ship(training: Path, task: str) -> str | None:
    """Copy a finished expert and its curve to where :func:`shipped_folder` says.

    Returns:
        What was done, in words; None where the training has no finished expert.
    """
    expert, target = training / EXPERT_FOLDER, shipped_folder(task)
    if not (expert / "config.json").is_file():
        return None
    new = read_config(expert)["score"]
    if new is None:
        return None
    bar = recipe_for(task).bar
    if share_of_bar(new["mean"], bar) < LEAST_SHARE:
        return f"left out, {new['mean']:.1f} is below {LEAST_SHARE:g} of its bar, {bar:g}"
    old = read_config(target)["score"] if target.is_dir() else None
    if old is not None and old["mean"] >= new["mean"]:
        return f"kept, {old['mean']:.1f} is not below {new['mean']:.1f}"
    with appearing(target) as place:
        for path in (expert / "config.json", expert / "model.safetensors", training / CURVE_FILE):
            shutil.copyfile(path, place / path.name)
    return f"shipped, {new['mean']:.1f}" + ("" if old is None else f" after {old['mean']:.1f}")


def _ships(task: str) -> bool:
    """Whether the package has an expert of the task at or above its bar."""
    folder = shipped_folder(task)
    if not folder.is_dir():
        return False
    score = read_config(folder).get("score")
    return score is not None and score["mean"] >= recipe_for(task).bar
