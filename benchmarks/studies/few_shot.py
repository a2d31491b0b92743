"""A few episodes of a task, and what a checkpoint already knows of it.

* :func:`nested_order` -- an order of a task's episodes whose beginnings are the subsets.
* :class:`Familiar`, :func:`familiar` -- how the checkpoint would read the task's spaces.
* :func:`make_environments` -- the task's environment, to play in.
* :class:`Unit` -- one point of one seed.
* :func:`write_curve` -- ``curve.csv`` and ``curve.png`` of the units that are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import gato_gym
from benchmarks.studies.plots import panels, write_csv
from gato_gym.episodes.minari_datasets import environment_of
from gato_gym.options import PlanOptions
from policies.collection.scores import Scores, interval
from policies.gato.checkpoint import Checkpoint
from policies.gato.task_specs import SpaceMismatchError, signature
from policies.training.data.datasets import DatasetTask, Place


@dataclass(frozen=True)
class Familiar:
    """How a checkpoint reads a task's spaces.

    Attributes:
        options: Token options of the task, or of tasks that look like it; None where the checkpoint
            knows no such spaces.
        known: Whether the task itself is one of the checkpoint's.
        prompted: Whether it acts after a demonstration there.
    """

    options: PlanOptions | None
    known: bool
    prompted: bool


def familiar(checkpoint: Checkpoint, task: DatasetTask) -> Familiar:
    """What a checkpoint knows of a task: itself, tasks of the same spaces, or neither.

    Raises:
        SpaceMismatchError: It knows a task of this id with other spaces.
    """
    spaces = signature(task.observation_space, task.action_space)
    record = checkpoint.tasks.get(task.id)
    if record is not None:
        if record.signature != spaces:
            raise SpaceMismatchError(
                f"the checkpoint knows {task.id!r} with spaces {record.signature}, and the dataset "
                f"has {spaces}: expected the same; record the environment as it was in training, "
                "or give the dataset's another id"
            )
        return Familiar(record.options, True, record.prompted)
    alike = [record for record in checkpoint.tasks.values() if record.signature == spaces]
    if not alike or any(record.options != alike[0].options for record in alike):
        return Familiar(None, False, False)
    return Familiar(alike[0].options, False, any(record.prompted for record in alike))


def nested_order(task: DatasetTask, seed: int) -> list[Place]:
    """The kept episodes in an order of their own for each seed.

    The first n of them are a subset, which contains those of every smaller n.
    """
    places = task.places()
    order = np.random.default_rng([seed, len(places)]).permutation(len(places))
    return [places[i] for i in order]


def make_environments(
    task: DatasetTask, count: int, name: str | None = None
) -> list[gym.Env[Any, Any]]:
    """Environments of a task.

    Args:
        task: Its dataset names the environment.
        count: How many.
        name: Id of the environment, where the dataset does not name it.

    Raises:
        ValueError: Nothing names it, or its spaces are not the dataset's.
    """
    env_id = name or environment_of(task.sources[0].dataset)
    if env_id is None:
        raise ValueError(
            f"dataset {task.id!r} names no environment that is registered here, in which the "
            "network is to be scored: pass --env, such as --env module:Mine-v0; a module that a "
            "dataset names is not imported"
        )
    envs = [gato_gym.make(env_id) for _ in range(count)]
    spaces = signature(envs[0].observation_space, envs[0].action_space)
    dataset_spaces = signature(task.observation_space, task.action_space)
    if spaces != dataset_spaces:
        raise ValueError(
            f"the environment has spaces {spaces}, and the dataset {dataset_spaces}: expected "
            "the same; name the environment that was recorded with --env"
        )
    return envs


ARMS = {
    "tuned": "fine-tuned",
    "scratch": "from scratch",
    "untrained": "zero-shot",
    "chance": "random",
}


@dataclass(frozen=True)
class Unit:
    """One training and what it scored.

    Attributes:
        arm: A key of :data:`ARMS`.
        episodes: Episodes of its subset; 0 for arms that are not trained.
        seed: Seed of its subset and batches.
    """

    arm: str
    episodes: int
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.arm}-{self.episodes:04d}-seed-{self.seed}"

    @property
    def title(self) -> str:
        """For people."""
        if not self.episodes:
            return ARMS[self.arm]
        plural = "s" if self.episodes > 1 else ""
        return f"{ARMS[self.arm]} on {self.episodes} episode{plural}, seed {self.seed}"


def write_curve(
    output: Path, scores: Mapping[Unit, Scores], *, task: str, expert: float
) -> list[dict[str, Any]]:
    """Write the table and the plot of what is done; returns the table's rows.

    A row is an arm and a number of episodes: means over seeds, and the 95 % bootstrap interval that
    redraws seeds, and episodes in them.
    """
    groups: dict[tuple[str, int], list[Scores]] = {}
    for unit, unit_scores in scores.items():
        groups.setdefault((unit.arm, unit.episodes), []).append(unit_scores)
    rows = [_row(arm, episodes, seeds) for (arm, episodes), seeds in sorted(groups.items())]
    blank = dict.fromkeys(rows[0])
    rows.append({**blank, "arm": "expert", "episodes": 0, "return": expert})
    write_csv(output / "curve.csv", rows)
    _draw(output / "curve.png", rows, task)
    return rows


def _row(arm: str, episodes: int, seeds: list[Scores]) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": arm, "episodes": episodes, "seeds": len(seeds)}
    figures: dict[str, list[Any]] = {"return": [s.returns for s in seeds]}
    successes = [s.successes for s in seeds if s.successes is not None]
    figures["success"] = successes if len(successes) == len(seeds) else []
    for name, values in figures.items():
        keys = (name, f"{name}_low", f"{name}_high")
        if not values:
            row |= dict.fromkeys(keys)
            continue
        mean = sum(sum(group) / len(group) for group in values) / len(values)
        low, high = interval(values, redraw_groups=len(values) > 1)
        row |= dict(zip(keys, (mean, low, high), strict=True))
    return row


def _draw(path: Path, rows: list[dict[str, Any]], task: str) -> None:
    figures = [f for f in ("return", "success") if any(row[f] is not None for row in rows[:-1])]
    with panels(path, 1, len(figures)) as axes:
        for axis, figure in zip(axes, figures, strict=True):
            for arm, colour in (("tuned", "tab:blue"), ("scratch", "tab:orange")):
                of_arm = [row for row in rows if row["arm"] == arm]
                if of_arm:
                    counts = [row["episodes"] for row in of_arm]
                    low, high = (
                        [row[f"{figure}_{end}"] for row in of_arm] for end in ("low", "high")
                    )
                    axis.plot(
                        counts, [row[figure] for row in of_arm], "o-", color=colour, label=ARMS[arm]
                    )
                    axis.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
            for arm, style in (("untrained", "--"), ("chance", ":"), ("expert", "-.")):
                level = [row[figure] for row in rows if row["arm"] == arm]
                if level and level[0] is not None:
                    label = ARMS.get(arm, "expert")
                    axis.axhline(level[0], linestyle=style, color="grey", label=label)
            axis.set(xscale="log", xlabel="episodes", title=f"{task}: {figure}")
            counts = sorted({row["episodes"] for row in rows if row["episodes"]})
            axis.set_xticks(counts, [str(count) for count in counts])
            axis.minorticks_off()
        axes[0].legend(frameon=False, fontsize=8)
