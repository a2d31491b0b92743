"""Tasks that a network never saw, from a few demonstrations: retrieval, prompts and training.

    python -m benchmarks.studies.unseen_tasks --root data --work runs/unseen
    python -m benchmarks.studies.unseen_tasks --tasks metaworld-door-lock --demonstrations 1 5

A network is trained without :data:`HELD_OUT`, half of its prompts being retrieved. Then each of
these tasks is played after 1, 5, 25, 100 demonstrations, in several orders, in the ways of
:data:`COLUMNS`. Each stage has a folder below ``work``, and what is done is kept, so that the
command can be stopped and run again.

* :func:`pretraining` -- what the network is trained with.
* :class:`TaskStudy` -- one task, in every way.
* :func:`table` -- scores of tasks and suites, with intervals.
* :func:`main` -- the command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.studies import gato_mini, recipe_episodes
from benchmarks.studies.few_shot import familiar, nested_order
from benchmarks.studies.finetune import FinetuneRun
from benchmarks.studies.plots import check_page, fill_page, panels, write_csv
from benchmarks.studies.settings import FinetuneSettings
from gato_gym import get_task
from gato_gym.commands.common import exit_status
from gato_gym.episodes.episode import Episode
from gato_gym.files.atomic_io import write_json
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from policies import GatoPolicy, RetrievalPolicy
from policies.base import Policy
from policies.collection.jobs import dataset_id
from policies.collection.scores import Scores, interval, play_scores
from policies.experts import has_expert
from policies.gato.checkpoint import load_checkpoint
from policies.model.network import GatoNetwork
from policies.training.data.datasets import find_tasks
from policies.training.data.vector_statistics import moments, with_statistics
from policies.training.initialization import grown_config, start_from
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

MARK = "unseen"
SUITES = ("atari", "babyai", "metaworld", "mujoco")

REGENTS = {
    "atari": ("alien", "mspacman", "pong", "spaceinvaders", "stargunner"),
    "metaworld": ("bin-picking", "box-close", "door-lock", "door-unlock", "hand-insert"),
    "mujoco": ("halfcheetah", "hopper"),
}
"""Tasks that REGENT (arXiv 2412.04759) held out."""

BABYAI = (
    "find-obj-s5", "go-to-obj-door", "go-to-red-blue-ball", "open-red-door", "pickup-dist",
    "pickup-loc", "put-next-local", "unlock-local",
)  # fmt: skip

HELD_OUT = tuple(
    f"{suite}-{name}" for suite, names in {**REGENTS, "babyai": BABYAI}.items() for name in names
)
"""Tasks that are left out; those without an expert here are not played."""

COLUMNS = {
    "retrieve": "nearest step",
    "prompt": "prompt",
    "shown": "retrieved prompt",
    "interpolated": "retrieved prompt, interpolated",
    "tuned": "fine-tuned",
    "scratch": "from scratch",
}
"""Ways to play: the action of the nearest demonstrated step; the network after the order's first
demonstration (whatever the number of them); after the retrieved steps; the same, mixed with the
nearest step's action; the network fine-tuned on the demonstrations; a fresh one trained on them."""

UNTRAINED = ("retrieve", "prompt", "shown", "interpolated")


def pretraining(
    root: Path, work: Path, *, steps: int, minutes: float | None = None, rows: int = 24
) -> TrainSettings:
    """What the network is trained with: gato-mini's recipe without the tasks, and with prompts.

    Args:
        root: Folder of gato-mini's datasets.
        work: Folder of the study.
        steps: Updates.
        minutes: Time for updates, in place of their number.
        rows: Packed sequences of a batch.
    """
    tasks = [task for suite in SUITES for task in recipe_episodes.known_tasks(suite)]
    return TrainSettings(
        datasets=tuple(str(root / dataset_id(task)) for task in tasks if task.id not in HELD_OUT),
        output=work / "pretrained",
        network={**gato_mini.NETWORK, "prompt_tokens": 128},
        steps=None if minutes else steps,
        minutes=minutes,
        group_by="suite",
        adaptive="none",
        augment=1,
        keep=0.0,
        weights={suite: gato_mini.WEIGHTS[suite] for suite in SUITES},
        prompt_share=0.8,
        prompt_retrieved=0.5,
        task_embeddings=True,
        options={"actions": "parallel"},
        precision="auto",
        rows=rows,
        length=256,
        score_every=0,
    )


@dataclass(frozen=True)
class Asked:
    """How much is played.

    Attributes:
        demonstrations: Numbers of demonstrations; those that a dataset has.
        orders: Orders in which they come.
        episodes: Episodes that each way plays.
        tuning_steps: Updates of each training on the demonstrations.
    """

    demonstrations: tuple[int, ...]
    orders: int
    episodes: int
    tuning_steps: int


class TaskStudy:
    """One task in every way, in a folder.

    Args:
        source: The network's checkpoint.
        dataset: Of the task.
        output: The folder.
        asked: How much is played.
    """

    def __init__(self, source: str, dataset: Path, output: Path, asked: Asked) -> None:
        (task,) = find_tasks([str(dataset)])
        counts = tuple(count for count in asked.demonstrations if count <= task.counts[0])
        self.asked, self.output = replace(asked, demonstrations=counts), output
        new = familiar(load_checkpoint(source), task).options is None
        settings = FinetuneSettings(
            source=source,
            datasets=(str(dataset),),
            output=output / "finetuned",
            episodes=counts,
            seeds=asked.orders,
            steps=asked.tuning_steps,
            from_scratch=True,
            score_episodes=asked.episodes,
            options={"actions": "parallel"} if new else {},
        )
        self.tuning = FinetuneRun(settings)
        self.task = self.tuning.task

    def run(self) -> None:
        """Play what has not been played yet."""
        for column, count, order in self._units():
            path = self._path(column, count, order)
            if not path.exists():
                policy = self.policy(column, self.shown(count, order))
                scores = play_scores(self.tuning.environments, policy, self.asked.episodes)
                write_json(path, scores.to_json())
        self.tuning.run()

    def shown(self, count: int, order: int) -> list[Episode]:
        """The first demonstrations of an order."""
        return list(self.task.episodes(nested_order(self.task, order)[:count]))

    def policy(self, column: str, shown: Sequence[Episode]) -> Policy:
        """What plays after some demonstrations, without any training on them."""
        task = self.task
        if column == "retrieve":
            spaces = task.observation_space, task.action_space
            return RetrievalPolicy(*spaces, shown, options=task.options)
        options = self.tuning.options
        if options is None:
            plan = task.plan()
            options = with_statistics(plan, [moments(plan, shown)]) if plan.vector_length else None
        policy = GatoPolicy(
            self._network, task.plan(options), task=task.id, sampler=self.tuning.checkpoint.sampler
        )
        if column == "prompt":
            return policy.with_prompt(shown[0], cut="select")
        return policy.with_demonstrations(shown, interpolate=column == "interpolated", show=True)

    @cached_property
    def _network(self) -> GatoNetwork:
        """The checkpoint's, with room for the task's spaces."""
        trained = self.tuning.checkpoint.network
        torch.manual_seed(0)
        network = GatoNetwork(grown_config(trained.config, self.task.plan(self.tuning.options)))
        start_from(network, trained.state_dict())
        return network

    def _units(self) -> Iterator[tuple[str, int, int]]:
        """Ways without training, numbers of demonstrations, orders."""
        counts, orders = self.asked.demonstrations, range(self.asked.orders)
        for order, count, column in product(orders, counts, UNTRAINED):
            if column != "prompt" or count == min(counts):
                yield column, count, order

    def _path(self, column: str, count: int, order: int) -> Path:
        return self.output / "units" / f"{column}-{count:04d}-order-{order}" / "score.json"

    def scores(self) -> dict[tuple[str, int], list[list[float]]]:
        """Scores of episodes by way, number of demonstrations and order, 0 being chance's mean
        return and 1 the expert's; those that are there."""
        units = self.tuning.settings.output / "units"
        chance = Scores.from_json(read_json(units / "chance-0000-seed-0" / "score.json")).mean
        scale = self.task.expert_return() - chance
        every = [(key, self._path(*key)) for key in self._units()]
        every += [
            ((arm, count, seed), units / f"{arm}-{count:04d}-seed-{seed}" / "score.json")
            for arm in ("tuned", "scratch")
            for count in self.asked.demonstrations
            for seed in range(self.asked.orders)
        ]
        by_way: dict[tuple[str, int], list[list[float]]] = {}
        for (column, count, _), path in every:
            if path.exists():
                returns = Scores.from_json(read_json(path)).returns
                normalised = [(each - chance) / scale for each in returns]
                by_way.setdefault((column, count), []).append(normalised)
        return by_way


TaskScores = Mapping[str, Mapping[tuple[str, int], list[list[float]]]]


def table(scores: TaskScores) -> list[dict[str, Any]]:
    """Rows of tasks, of the means of suites' tasks, and of all tasks' ("all").

    An interval redraws the orders, and the episodes in them; of a mean, the episodes of an order
    are those of all its tasks.

    Args:
        scores: By task, way and number of demonstrations: lists of episodes by order.
    """
    groups: dict[str, list[str]] = {task: [task] for task in scores}
    for task in scores:
        for name in (task.partition("-")[0], "all"):
            groups.setdefault(name, []).append(task)
    rows = []
    for name, tasks in groups.items():
        ways = {way for task in tasks for way in scores[task]}
        for column, count in sorted(ways, key=lambda way: (list(COLUMNS).index(way[0]), way[1])):
            parts = [
                scores[task][column, count] for task in tasks if (column, count) in scores[task]
            ]
            orders = [np.concatenate(order) for order in zip(*parts, strict=True)]
            low, high = interval(orders, redraw_groups=len(orders) > 1)
            rows.append(
                {
                    "task": name,
                    "way": column,
                    "demonstrations": count,
                    "tasks": len(parts),
                    "score": float(np.mean([order.mean() for order in orders])),
                    "low": low,
                    "high": high,
                }
            )
    return rows


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Score against demonstrations, a panel for each suite and one for all tasks."""
    present = [name for name in (*SUITES, "all") if any(row["task"] == name for row in rows)]
    with panels(path, 1, len(present)) as axes:
        for axis, name in zip(axes, present, strict=True):
            for number, (column, title) in enumerate(COLUMNS.items()):
                points = [row for row in rows if (row["task"], row["way"]) == (name, column)]
                if not points:
                    continue
                counts, means, low, high = (
                    [row[key] for row in points]
                    for key in ("demonstrations", "score", "low", "high")
                )
                axis.plot(counts, means, "o-", color=f"C{number}", label=title)
                axis.fill_between(counts, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
            ticks = sorted({row["demonstrations"] for row in rows})
            axis.set(xscale="log", xlabel="demonstrations", title=f"{name}: share of the expert")
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.minorticks_off()
        axes[0].legend(frameon=False, fontsize=7)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table: a line for each task and number of demonstrations."""
    head = ["task", "demonstrations", *COLUMNS.values()]
    lines = [head, ["---"] * len(head)]
    cells = {(row["task"], row["demonstrations"], row["way"]): row for row in rows}
    for task, count in dict.fromkeys((row["task"], row["demonstrations"]) for row in rows):
        line = [task, str(count)]
        for column in COLUMNS:
            row = cells.get((task, count, column))
            interval_of = "" if row is None else f" ({row['low']:.2f} to {row['high']:.2f})"
            line.append("" if row is None else f"{row['score']:.2f}{interval_of}")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(
    *,
    tasks: tuple[str, ...] = HELD_OUT,
    demonstrations: tuple[int, ...] = (1, 5, 25, 100),
    orders: int = 3,
    episodes: int = 20,
    steps: int = 2400,
    minutes: float | None = None,
    rows: int = 24,
    tuning_steps: int = 500,
    root: Path = Path("data"),
    work: Path = Path("runs/unseen"),
    csv: Path = Path("docs/unseen-tasks.csv"),
    figure: Path = Path("docs/unseen-tasks.png"),
    page: Path = Path("docs/unseen-tasks.md"),
    threads: int = 1,
) -> None:
    """Play tasks that were left out, after a few demonstrations.

    Args:
        tasks: Ids of the tasks, all of which are left out of the network's training.
        demonstrations: Numbers of demonstrations.
        orders: Orders in which they come.
        episodes: Episodes that each way plays.
        steps: Updates of the network's training.
        minutes: Time for them, in place of their number.
        rows: Packed sequences of a batch of that training.
        tuning_steps: Updates of each training on the demonstrations.
        root: Folder of the datasets, see benchmarks.studies.gato_mini.
        work: Folder of the study.
        csv: File of the table.
        figure: File of the figure.
        page: File that shows the table.
        threads: Threads of the CPU.
    """
    check_page(page, MARK)
    if unknown := sorted(set(tasks) - set(HELD_OUT)):
        raise ValueError(f"tasks names {unknown}: expected some of {list(HELD_OUT)}")
    torch.set_num_threads(threads)
    asked = Asked(demonstrations, orders, episodes, tuning_steps)
    scores: dict[str, Mapping[tuple[str, int], list[list[float]]]] = {}
    with FolderLock(work):
        TrainRun(pretraining(root, work, steps=steps, minutes=minutes, rows=rows)).train()
        for task in tasks:
            if has_expert(task):
                place = work / "tasks" / task
                dataset = root / dataset_id(get_task(task))
                study = TaskStudy(str(work / "pretrained"), dataset, place, asked)
                study.run()
                scores[task] = study.scores()
                lines = table(scores)
                write_csv(csv, lines)
                draw(lines, figure)
                fill_page(page, MARK, markdown(lines))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
