"""Sizes of one shape, trained on the same tokens: loss and score against size and tokens.

* :class:`ScalingSettings` -- what is asked for.
* :class:`ScalingRun` -- trains each size, and measures its averaged weights along the way.

Every size sees the same batches, and is measured on the same batches of episodes that none sees and
in the same episodes of the environments. The folder holds ``shards/``, a run and its measurements
for each size, ``scaling.csv`` and ``scaling.png``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from benchmarks.studies.few_shot import expert_return, make_environments
from benchmarks.studies.plots import NOT_DRAWN, can_draw, panels, write_csv
from gato_gym.atomic_io import write_whole
from policies.collection.scores import Scores, interval, play_scores
from policies.gato.checkpoint import RUN_STATE, save_checkpoint
from policies.gato.prompts import prompt_from_episode
from policies.gato.task_specs import TaskRecord, check_sizes, signature
from policies.model.config import preset
from policies.model.network import GatoNetwork, count_parameters
from policies.registry import make_policy
from policies.training.config import TrainConfig, check_same
from policies.training.data.datasets import DatasetTask, find_tasks, shard_tasks
from policies.training.data.packing import Mixture, Packer
from policies.training.data.shards import TaskShard
from policies.training.export import SAMPLER, averaged_weights
from policies.training.loss import action_loss
from policies.training.optimizer import OptimiserConfig
from policies.training.trainer import Trainer

MEASURED_BATCHES, MEASURED_ROWS = 8, 16
"""Of the held-out episodes: enough that the order of two sizes is not that of the draw."""

PROMPT_SHARE = 0.5
"""Of the documents of a task that its observations do not tell from another."""


@dataclass(frozen=True)
class ScalingSettings:
    """What is asked for.

    Attributes:
        datasets: Ids or paths of Minari datasets.
        output: The study's folder.
        sizes: Presets.
        tokens: Of each training; rounded so that every measurement falls on a step.
        points: Measurements along a training, the last at its end.
        score_episodes: Of each task and measurement; 0 measures the loss alone.
        environments: How many are played at a time.
        held_out: Share of each task's episodes that none is trained on, at least two.
        seed: Of weights and batches.
        keep: Share of the expert's windowed return that an episode must reach.
        rows, length: Of a batch.
        device: "auto", "cpu", "cuda".
    """

    datasets: tuple[str, ...]
    output: Path
    sizes: tuple[str, ...] = ("0.4m", "0.7m", "1.4m", "2.8m")
    tokens: float = 2e6
    points: int = 5
    score_episodes: int = 10
    environments: int = 10
    held_out: float = 0.05
    seed: int = 0
    keep: float = 0.8
    rows: int = 8
    length: int = 256
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("points", "environments", "rows", "length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if self.score_episodes < 0:
            raise ValueError(f"score_episodes is {self.score_episodes}: expected 0 or more")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}: expected more than 0, less than 1")
        if self.tokens < (least := self.points * self.rows * self.length):
            raise ValueError(
                f"tokens is {self.tokens:g}: expected at least {least:,}, a batch of {self.rows} x "
                f"{self.length} for each of {self.points} points"
            )

    @property
    def stride(self) -> int:
        """Steps between two measurements."""
        return round(self.tokens / (self.rows * self.length * self.points))


class ScalingRun:
    """Every size of a study, in a folder.

    Args:
        settings: What is asked for.
        console: Where it is told.

    Raises:
        FileNotFoundError: A dataset is not there.
        ValueError: A size is unknown, a dataset is too small or cannot be used, or the folder holds
            another study.
    """

    def __init__(self, settings: ScalingSettings, console: Console | None = None) -> None:
        self.settings = settings
        self.console = console or Console(soft_wrap=True)
        self.tasks = {t.id: t for t in find_tasks(settings.datasets, share=settings.keep)}
        for size in settings.sizes:
            for task in self.tasks.values():
                check_sizes(preset(size), task.plan())
        for task in self.tasks.values():
            if task.counts[0] < 4:
                raise ValueError(
                    f"{task.id!r} has {task.counts[0]} good episodes: expected at least 4, two of "
                    "them to measure with; record more"
                )
        self._check_same_study()
        self.prompted = {name: self._is_ambiguous(task) for name, task in self.tasks.items()}
        self.console.print(f"encoding {len(self.tasks)} tasks", highlight=False)
        whole = shard_tasks(list(self.tasks.values()), settings.output / "shards")
        self.shards, self.held_out = self._split(whole)
        if not can_draw():
            self.console.print(NOT_DRAWN, highlight=False, markup=False)

    def _check_same_study(self) -> None:
        asked = self.settings
        identity = {
            "tasks": {name: task.identity() for name, task in self.tasks.items()},
            "score_episodes": asked.score_episodes,
            "held_out": asked.held_out,
            "seed": asked.seed,
            "stride": asked.stride,
            "points": asked.points,
        }
        path = asked.output / "scaling.json"
        if path.exists():
            check_same(json.loads(path.read_text()), json.loads(json.dumps(identity)), asked.output)
        asked.output.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(identity, indent=1))

    def _is_ambiguous(self, task: DatasetTask) -> bool:
        """Whether only a demonstration tells it from another: same spaces, and no words."""
        spaces = signature(task.observation_space, task.action_space)
        alike = [
            other
            for other in self.tasks.values()
            if signature(other.observation_space, other.action_space) == spaces
        ]
        return len(alike) > 1 and not task.plan().has_text

    def _split(
        self, whole: dict[str, TaskShard]
    ) -> tuple[dict[str, TaskShard], dict[str, TaskShard]]:
        """The last episodes of each task are never trained on."""
        first, last = {}, {}
        for name, shard in whole.items():
            total = len(shard.ends)
            cut = total - max(2, round(total * self.settings.held_out))
            first[name], last[name] = shard.part(0, cut), shard.part(cut, total)
        return first, last

    def _mixture(self) -> Mixture:
        return Mixture(
            weights=dict.fromkeys(self.tasks, 1.0),
            prompt_share={name: PROMPT_SHARE * told for name, told in self.prompted.items()},
        )

    def config(self, size: str) -> TrainConfig:
        """What a size is trained with: all but the network is the same for each."""
        asked = self.settings
        steps = asked.stride * asked.points
        return TrainConfig(
            network=preset(size),
            mixture=self._mixture(),
            optimiser=OptimiserConfig(warmup=max(1, min(100, steps // 10))),
            steps=steps,
            rows=asked.rows,
            length=asked.length,
            seed=asked.seed,
        )

    def run(self) -> list[dict[str, Any]]:
        """Do what is not done yet; returns the table's rows.

        Raises:
            KeyboardInterrupt: It was stopped; the same settings go on.
        """
        rows: list[dict[str, Any]] = []
        for size in self.settings.sizes:
            folder = self.settings.output / "sizes" / size
            config = self.config(size)
            trainer = Trainer(
                config,
                self.shards,
                folder / RUN_STATE,
                save_every=max(50, self.settings.stride),
                kept_every=self.settings.stride,
                log_every=self.settings.stride,
                device=self.settings.device,
            )
            trainer.resume()
            if trainer.step < config.steps:
                parameters = count_parameters(trainer.network)
                self.console.print(f"{size}: {parameters:,} parameters", highlight=False)
                trainer.run()
            for step in range(self.settings.stride, config.steps + 1, self.settings.stride):
                rows.append(self._measured(size, config, folder, step))
                write_csv(self.settings.output / "scaling.csv", rows)
            if can_draw():
                draw_scaling(self.settings.output / "scaling.png", rows)
        return rows

    def _measured(self, size: str, config: TrainConfig, folder: Path, step: int) -> dict[str, Any]:
        """The row of a size at a step, measured once."""
        done = folder / f"step-{step:06d}.json"
        if done.exists():
            return dict(json.loads(done.read_text()))
        network = GatoNetwork(config.network)
        weights = averaged_weights(folder / RUN_STATE, step=step)
        network.load_state_dict({**network.state_dict(), **weights}, strict=True)
        row: dict[str, Any] = {
            "size": size,
            "parameters": count_parameters(network),
            "backbone": count_parameters(network.backbone),
            "step": step,
            "tokens": step * config.rows * config.length,
            **self._losses(network, config),
        }
        row |= dict.fromkeys(("score", "score_low", "score_high"))
        if self.settings.score_episodes:
            row |= self._score(network, folder)
        score_text = "" if row["score"] is None else f"  score {row['score']:.3f}"
        self.console.print(
            f"{size} after {row['tokens']:,} tokens: held-out loss {row['loss']:.4f}{score_text}",
            highlight=False,
        )
        write_whole(done, json.dumps(row, indent=1))
        return row

    @cached_property
    def _batches(self) -> list[Any]:
        packer = Packer(
            self.held_out,
            {name: shard.group for name, shard in self.held_out.items()},
            self._mixture(),
            preset(self.settings.sizes[0]),
            rows=MEASURED_ROWS,
            length=self.settings.length,
            seed=self.settings.seed + 1,
        )
        return [packer.batch(index) for index in range(MEASURED_BATCHES)]

    @torch.no_grad()
    def _losses(self, network: GatoNetwork, config: TrainConfig) -> dict[str, float]:
        network.eval()
        total, scale, sums = 0.0, 0.0, np.zeros(9)
        for batch in self._batches:
            report = action_loss(
                network, network(batch), batch.targets, sigma=config.sigma, balance=config.balance
            )
            total, scale = total + float(report.total), scale + float(report.scale)
            sums += report.sums.numpy()
        losses = {"loss": total / scale}
        for kind, at, what in (("discrete", 0, "accuracy"), ("continuous", 3, "error")):
            if sums[at]:
                losses[f"{kind}_loss"] = float(sums[at + 1] / sums[at])
                losses[f"{kind}_{what}"] = float(sums[at + 2] / sums[at])
        return losses

    def _score(self, network: GatoNetwork, folder: Path) -> dict[str, float]:
        """Mean over tasks of the share of successes, or of the return between random and expert."""
        records = {}
        for name, shard in self.shards.items():
            episode = self.tasks[name].demonstration()
            room = network.config.prompt_tokens
            prompt = prompt_from_episode(shard.plan, episode, capacity=room, cut="end")
            records[name] = TaskRecord.of(shard.plan, prompt, prompted=self.prompted[name])
        save_checkpoint(folder / "checkpoint", network, records, SAMPLER)
        groups = []
        for name, task in track(
            self.tasks.items(), "playing", transient=True, disable=not self.console.is_terminal
        ):
            envs = self._environments[name]
            player = make_policy(str(folder / "checkpoint"), env=envs[0])
            scores = play_scores(envs, player, self.settings.score_episodes)
            groups.append(self._normalised(name, task, scores))
        low, high = interval(groups, redraw_groups=False)
        mean = float(np.mean([np.mean(group) for group in groups]))
        return {"score": mean, "score_low": low, "score_high": high}

    def _normalised(self, name: str, task: DatasetTask, scores: Scores) -> Any:
        if scores.successes is not None:
            return np.asarray(scores.successes, np.float64)
        chance, expert = self._chance[name], expert_return(task)
        if expert <= chance:
            raise ValueError(
                f"{name}: the expert's return is {expert:g} and random's {chance:g}: a score needs "
                "an expert who is better; leave the task out, or pass --score-episodes 0"
            )
        return (np.asarray(scores.returns) - chance) / (expert - chance)

    @cached_property
    def _environments(self) -> dict[str, list[Any]]:
        count = min(self.settings.environments, self.settings.score_episodes)
        return {name: make_environments(task, count) for name, task in self.tasks.items()}

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
