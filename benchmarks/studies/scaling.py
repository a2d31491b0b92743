"""Sizes of one shape, trained on the same tokens: loss and score against size and tokens.

* :class:`ScalingRun` -- trains each size, and measures its averaged weights along the way.

Every size sees the same batches, and is measured on the same batches of episodes that none sees and
in the same episodes of the environments. The folder holds ``shards/``, a run and its measurements
for each size, ``scaling.csv`` and ``scaling.png``.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.studies.few_shot import make_environments
from benchmarks.studies.plots import panels, write_csv
from benchmarks.studies.settings import ScalingSettings
from gato_gym.files.atomic_io import write_whole
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from gato_gym.terminal import new_console
from policies.collection.scores import Scores, interval, play_scores
from policies.gato.checkpoint_folder import RUN_CHECKPOINT
from policies.model.network import GatoNetwork, PackedBatch, count_parameters
from policies.registry import make_policy
from policies.training.config import record_identity
from policies.training.data.datasets import DatasetTask, find_tasks
from policies.training.data.packing import Packer
from policies.training.loss import mean_losses
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

MEASURED_BATCHES, MEASURED_ROWS = 8, 16
"""Batches of held-out episodes: enough that the order of two sizes is not that of the draw."""

PROMPT_SHARE = 0.5
"""Share of prompted documents, for a task whose observations do not identify it."""


class ScalingRun:
    """Every size of a study, in a folder.

    Args:
        settings: What is asked for.
        console: Where it reports.

    Raises:
        FileNotFoundError: A dataset is not there.
        ValueError: A size is unknown, a dataset is too small or cannot be used, or the folder holds
            another study.
    """

    def __init__(self, settings: ScalingSettings, console: Console | None = None) -> None:
        self.settings = settings
        self.console = console or new_console(soft_wrap=True)
        self.tasks = {t.id: t for t in find_tasks(settings.datasets, share=settings.keep)}
        for task in self.tasks.values():
            if task.counts[0] < 4:
                raise ValueError(
                    f"{task.id!r} has {task.counts[0]} good episodes: expected at least 4, two of "
                    "them to measure with; record more"
                )
        self._check_same_study()
        self.runs = {size: TrainRun(self._train_settings(size)) for size in settings.sizes}

    def _train_settings(self, size: str) -> TrainSettings:
        """What a size is trained with: all but the network is the same for each."""
        settings, tasks = self.settings, self.tasks.values()
        return TrainSettings(
            datasets=settings.datasets,
            output=settings.output / "sizes" / size,
            shards=settings.output / "shards",
            preset=size,
            steps=settings.stride * settings.points,
            keep=settings.keep,
            held_out=settings.held_out,
            prompt_share=0.0,
            prompt_shares={t.id: PROMPT_SHARE for t in tasks if t.needs_prompt(tasks)},
            optimiser="muon",
            rows=settings.rows,
            length=settings.length,
            accumulate=1,
            seed=settings.seed,
            device=settings.device,
            keep_every=settings.stride,
            score_every=0,
        )

    def _check_same_study(self) -> None:
        settings = self.settings
        identity = {
            "tasks": {name: task.identity() for name, task in self.tasks.items()},
            "score_episodes": settings.score_episodes,
            "held_out": settings.held_out,
            "seed": settings.seed,
            "stride": settings.stride,
            "points": settings.points,
        }
        record_identity(settings.output / "scaling.json", identity, settings.output)

    def run(self) -> list[dict[str, Any]]:
        """Do what is not done yet; returns the table's rows.

        Raises:
            FolderInUseError: Another process writes to the folder.
            KeyboardInterrupt: It was stopped; the same settings resume it.
        """
        with FolderLock(self.settings.output):
            return self._run()

    def _run(self) -> list[dict[str, Any]]:
        settings = self.settings
        rows: list[dict[str, Any]] = []
        for size, run in self.runs.items():
            steps = range(settings.stride, run.config.steps + 1, settings.stride)
            measurements = {
                step: settings.output / "sizes" / size / f"step-{step:06d}.json" for step in steps
            }
            if not all(path.exists() for path in measurements.values()):
                parameters = count_parameters(GatoNetwork(run.config.network))
                self.console.print(f"{size}: {parameters:,} parameters", highlight=False)
                run.train()
            for step, path in measurements.items():
                if not path.exists():
                    write_whole(path, json.dumps(self._measure(size, step), indent=1))
                rows.append(read_json(path))
                write_csv(settings.output / "scaling.csv", rows)
            draw_scaling(settings.output / "scaling.png", rows)
        return rows

    def _measure(self, size: str, step: int) -> dict[str, Any]:
        """The row of a size at a step."""
        run = self.runs[size]
        config, checkpoint = run.config, run.settings.output / RUN_CHECKPOINT
        network = run.export(checkpoint, step=step)
        row: dict[str, Any] = {
            "size": size,
            "parameters": count_parameters(network),
            "backbone": count_parameters(network.backbone),
            "step": step,
            "tokens": step * config.rows * config.length,
            **mean_losses(network, self.batches, sigma=config.sigma, balance=config.balance),
        }
        row |= dict.fromkeys(("score", "score_low", "score_high"))
        if self.settings.score_episodes:
            row |= self._score(checkpoint)
        score_text = "" if row["score"] is None else f"  score {row['score']:.3f}"
        self.console.print(
            f"{size} after {row['tokens']:,} tokens: held-out loss {row['loss']:.4f}{score_text}",
            highlight=False,
        )
        return row

    @cached_property
    def batches(self) -> list[PackedBatch]:
        """What every size is measured on: batches of episodes that none is trained on."""
        run = self.runs[self.settings.sizes[0]]
        packer = Packer(
            run.held_out,
            run.config.mixture,
            run.config.network,
            rows=MEASURED_ROWS,
            length=self.settings.length,
            seed=self.settings.seed + 1,
        )
        return [packer.batch(index) for index in range(MEASURED_BATCHES)]

    def _score(self, checkpoint: Path) -> dict[str, float]:
        """Mean over tasks of the share of successes, or of the return between random and expert."""
        groups = []
        for name, task in track(
            self.tasks.items(), "playing", transient=True, disable=not self.console.is_terminal
        ):
            envs = self._environments[name]
            policy = make_policy(str(checkpoint), env=envs[0])
            scores = play_scores(envs, policy, self.settings.score_episodes)
            groups.append(self._normalised(name, task, scores))
        low, high = interval(groups, redraw_groups=False)
        mean = float(np.mean([np.mean(group) for group in groups]))
        return {"score": mean, "score_low": low, "score_high": high}

    def _normalised(self, name: str, task: DatasetTask, scores: Scores) -> Any:
        if scores.successes is not None:
            return np.asarray(scores.successes, np.float64)
        chance, expert = self._chance[name], task.expert_return()
        if expert <= chance:
            raise ValueError(
                f"{name}: the expert's return is {expert:g} and random's {chance:g}: a score needs "
                "an expert who is better; leave the task out, or pass --score-episodes 0"
            )
        return (np.asarray(scores.returns) - chance) / (expert - chance)

    @cached_property
    def _environments(self) -> dict[str, list[Any]]:
        count = min(self.settings.environments, self.settings.score_episodes)
        given = {name.rpartition(":")[2]: name for name in self.settings.env}
        return {
            name: make_environments(task, count, given.get(name))
            for name, task in self.tasks.items()
        }

    @cached_property
    def _chance(self) -> dict[str, float]:
        return {
            name: play_scores(
                envs, make_policy("random", env=envs[0]), self.settings.score_episodes
            ).mean
            for name, envs in self._environments.items()
        }


def draw_scaling(path: Path, rows: list[dict[str, Any]]) -> None:
    """Loss and score, each against tokens for every size and against size for every budget."""
    figures = ["loss"] + (["score"] if rows[0]["score"] is not None else [])
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    budgets = sorted({row["tokens"] for row in rows})
    with panels(path, len(figures), 2) as axes:
        for place, figure in enumerate(figures):
            left, right = axes[2 * place : 2 * place + 2]
            for size in sizes:
                of_size = [row for row in rows if row["size"] == size]
                left.plot(
                    [r["tokens"] for r in of_size],
                    [r[figure] for r in of_size],
                    "o-",
                    label=size,
                )
            for budget in budgets:
                of_budget = [row for row in rows if row["tokens"] == budget]
                label = f"{budget / 1e6:.2g}M tokens"
                counts = [r["parameters"] for r in of_budget]
                right.plot(counts, [r[figure] for r in of_budget], "o-", label=label)
            name = "held-out loss" if figure == "loss" else "score"
            left.set(xlabel="tokens", ylabel=name, xscale="log")
            right.set(xlabel="parameters", ylabel=name, xscale="log")
        axes[0].legend(frameon=False, fontsize=8)
        axes[1].legend(frameon=False, fontsize=8)
