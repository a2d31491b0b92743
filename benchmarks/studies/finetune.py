"""Fine-tuning on a few episodes of one environment, and the curve of how few are enough.

* :class:`FinetuneRun` -- every number of episodes, seed and arm, one after another.

A unit is a training on the first n episodes of a seed's order, scored afterwards. The folder holds
``units/``, ``curve.csv``, ``curve.png``, and ``checkpoint/`` of the first seed's largest subset,
which :meth:`policies.GatoPolicy.load` finds by the folder's name, as it does in each unit's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.studies.few_shot import (
    Unit,
    familiar,
    make_environments,
    nested_order,
    write_curve,
)
from benchmarks.studies.settings import FinetuneSettings
from gato_gym.files.atomic_io import appearing, write_whole
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from gato_gym.options import PlanOptions
from gato_gym.terminal import new_console
from policies.collection.scores import Scores, play_scores
from policies.gato.checkpoint import load_checkpoint, save_checkpoint
from policies.gato.checkpoint_folder import CHECKPOINT_FILES, RUN_CHECKPOINT, RUN_STATE
from policies.gato.task_specs import check_row
from policies.model.config import NetworkConfig
from policies.model.network import GatoNetwork
from policies.registry import make_policy
from policies.training.config import TrainConfig, record_identity, usual_precision
from policies.training.data.datasets import find_tasks
from policies.training.data.encoding import shard_task
from policies.training.data.packing import Mixture
from policies.training.families.gato import write_checkpoint
from policies.training.initialization import grown_config, start_from
from policies.training.lora import LowRank, trained_parameters
from policies.training.optimizer import OptimiserConfig
from policies.training.pipeline import Pipeline

IDENTITY = ("steps", "lora", "rate", "optimiser", "rows", "length", "score_episodes")
"""Settings that every unit depends on."""

LARGE_WIDTH = 768
"""Networks from this width on are fine-tuned with the small steps that large networks need."""


def tuning_optimiser(
    settings: FinetuneSettings, config: NetworkConfig, *, scratch: bool
) -> OptimiserConfig:
    """Rates of an arm: a quarter of a pretraining's where it starts from pretrained weights.

    LoRA's updates start at zero and take the full rate; wide networks take a constant 1e-5 with
    AdamW. Training from scratch has the rates that ``gato-gym train`` has.
    """
    usual = OptimiserConfig()
    lora = settings.lora is not None and not scratch
    large = config.width >= LARGE_WIDTH
    name = settings.optimiser or ("adamw" if lora or large else "muon")
    rate = usual.rate if scratch or lora else usual.rate / 4
    if large:
        rate = 1e-4 if scratch or lora else 1e-5
    if settings.rate is not None and not scratch:
        rate = settings.rate
    return dataclasses.replace(
        usual,
        name=name,
        rate=rate,
        matrix_rate=2 * rate,
        warmup=max(1, min(100, settings.steps // 10)),
        cooldown=0.0 if large else usual.cooldown,
    )


class FinetuneRun:
    """Every unit of a curve, in a folder.

    Args:
        settings: What is asked for.
        console: Where it reports.

    Raises:
        policies.gato.checkpoint.CheckpointError: There is no such checkpoint.
        FileNotFoundError: A dataset is not there.
        ValueError: A dataset has too few episodes, or its spaces do not fit, or the folder holds
            another run.
    """

    def __init__(self, settings: FinetuneSettings, console: Console | None = None) -> None:
        self.settings = settings
        self.console = console or new_console(soft_wrap=True)
        self.checkpoint = load_checkpoint(settings.source)
        tasks = find_tasks(
            settings.datasets,
            share=settings.keep,
            layout=settings.layout,
            memory=settings.memory,
            changes=settings.options,
        )
        if len(tasks) != 1:
            raise ValueError(
                f"the datasets are of {', '.join(task.id for task in tasks)}: expected those of "
                "one environment; fine-tune on one at a time"
            )
        (self.task,) = tasks
        self._check_enough()
        self.familiar = familiar(self.checkpoint, self.task)
        changed = settings.layout or settings.memory or settings.options
        self.options: PlanOptions | None = None if changed else self.familiar.options
        self.lora = (
            None
            if settings.lora is None
            else LowRank(settings.lora, embeddings=self.options is None)
        )
        plan = self.task.plan(self.options)
        self.network = grown_config(self.checkpoint.network.config, plan)
        check_row(plan, settings.length, task=self.task.id)
        self._check_same_run()

    def _check_enough(self) -> None:
        kept, total = self.task.counts
        if (most := max(self.settings.episodes)) > kept:
            raise ValueError(
                f"{most} episodes of {self.task.id!r} are asked for and {kept} of {total} are good "
                f"enough: record more, lower --keep, or ask for {kept} at most"
            )

    def _check_same_run(self) -> None:
        digest = hashlib.blake2b(digest_size=8)
        for _, tensor in sorted(self.checkpoint.network.state_dict().items()):
            digest.update(tensor.numpy().tobytes())
        settings = self.settings
        identity = {
            "weights": digest.hexdigest(),
            "task": self.task.identity(),
            "options": None if self.options is None else self.options.to_json(),
            **{name: getattr(settings, name) for name in IDENTITY},
        }
        record_identity(settings.output / RUN_STATE / "finetune.json", identity, settings.output)

    @cached_property
    def environments(self) -> list[Any]:
        """What the units play in, each episode of a unit in one of them."""
        count = min(self.settings.environments, self.settings.score_episodes)
        return make_environments(self.task, count, self.settings.env)

    def units(self) -> list[Unit]:
        """All of them, in the order in which they are done."""
        settings = self.settings
        arms = ("tuned", "scratch") if settings.from_scratch else ("tuned",)
        units = [Unit("chance", 0, 0), Unit("untrained", 0, 0)]
        if self.options is None:
            units.pop()
        elif self.familiar.prompted and not self.familiar.known:
            units += [Unit("untrained", 0, seed) for seed in range(1, settings.seeds)]
        return units + [
            Unit(arm, count, seed)
            for seed in range(settings.seeds)
            for count in settings.episodes
            for arm in arms
        ]

    def run(self) -> Path:
        """Do what is not done yet; returns the checkpoint's folder.

        Raises:
            FolderInUseError: Another process writes to the folder.
            KeyboardInterrupt: It was stopped; the same settings resume it.
        """
        with FolderLock(self.settings.output):
            return self._run()

    def _run(self) -> Path:
        units = self.units()
        self._describe(len(units))
        scores: dict[Unit, Scores] = {}
        for number, unit in enumerate(units, 1):
            try:
                scores[unit] = self._unit(unit)
            except KeyboardInterrupt:
                self.console.print(
                    f"{number - 1} of {len(units)} units are done: run again to resume",
                    highlight=False,
                )
                raise
            shown = "" if scores[unit].success is None else f"  success {scores[unit].success:.2f}"
            line = f"[{number}/{len(units)}] {unit.title}: return {scores[unit].mean:.2f}{shown}"
            self.console.print(line, highlight=False, markup=False)
            write_curve(
                self.settings.output, scores, task=self.task.id, expert=self.task.expert_return()
            )
        return self.settings.output / RUN_CHECKPOINT

    def _describe(self, count: int) -> None:
        known = (
            "a task that the checkpoint knows"
            if self.familiar.known
            else "a new task of spaces that it knows"
            if self.familiar.options is not None
            else "spaces that it does not know"
        )
        read = "its own tokens" if self.options is None else "the checkpoint's tokens"
        if warning := self.task.filter_warning():
            self.console.print(warning, style="yellow", highlight=False, markup=False)
        kept, total = self.task.counts
        self.console.print(
            f"{self.task.id}: {known}, read as {read}; {kept} of {total} episodes kept; "
            f"{count} units of {self.settings.steps} steps",
            highlight=False,
        )

    def _unit(self, unit: Unit) -> Scores:
        folder = self.settings.output / "units" / unit.name
        done = folder / "score.json"
        if done.exists():
            return Scores.from_json(read_json(done))
        folder.mkdir(parents=True, exist_ok=True)
        minutes, player = 0.0, "random"
        if unit.arm == "untrained":
            self._write_untrained(unit, folder / RUN_CHECKPOINT)
        elif unit.arm != "chance":
            minutes = self._train(unit, folder)
        if unit.arm != "chance":
            player = str(folder / RUN_CHECKPOINT)
        env = self.environments[0]
        scores = play_scores(
            self.environments, make_policy(player, env=env), self.settings.score_episodes
        )
        if unit == Unit("tuned", max(self.settings.episodes), 0):
            with appearing(self.settings.output / RUN_CHECKPOINT, own=CHECKPOINT_FILES) as place:
                shutil.copytree(folder / RUN_CHECKPOINT, place, dirs_exist_ok=True)
        result = {**dataclasses.asdict(unit), "minutes": round(minutes, 3), **scores.to_json()}
        write_whole(done, json.dumps(result, indent=1))
        self._tidy(unit, folder)
        return scores

    def _tidy(self, unit: Unit, folder: Path) -> None:
        """Leave of a unit its checkpoint and curve; of training from scratch the curve alone."""
        shutil.rmtree(folder / RUN_STATE / "last", ignore_errors=True)
        shutil.rmtree(folder / "shard", ignore_errors=True)
        if unit.arm == "scratch":
            shutil.rmtree(folder / RUN_CHECKPOINT, ignore_errors=True)

    def _write_untrained(self, unit: Unit, place: Path) -> None:
        """The checkpoint as it is, after the first episode of the unit's subsets if prompted."""
        network, sampler = self.checkpoint.network, self.checkpoint.sampler
        record = self.checkpoint.tasks.get(self.task.id)
        if record is not None:
            save_checkpoint(place, network, {self.task.id: record}, sampler, dtype=torch.bfloat16)
            return
        (first,) = self.task.episodes(nested_order(self.task, unit.seed)[:1])
        plans = {self.task.id: self.task.plan(self.options)}
        shown = {self.task.id: (first, self.familiar.prompted)}
        write_checkpoint(place, network, plans, shown, sampler=sampler)

    def _train(self, unit: Unit, folder: Path) -> float:
        """Train a unit, or resume it, and write its checkpoint; returns the minutes."""
        places = nested_order(self.task, unit.seed)[: unit.episodes]
        reads_returns = self.network.return_conditioned
        shard = shard_task(self.task, folder / "shard", places, self.options, rewards=reads_returns)
        scratch = unit.arm == "scratch"
        steps = self.settings.steps
        config = TrainConfig(
            network=self.network,
            mixture=Mixture(weights={self.task.id: 1.0}),
            optimiser=tuning_optimiser(self.settings, self.network, scratch=scratch),
            steps=steps,
            rows=self.settings.rows,
            length=self.settings.length,
            precision=usual_precision(),
            seed=unit.seed,
        )
        pipeline = Pipeline(
            config,
            {self.task.id: shard},
            folder / RUN_STATE,
            begin=None if scratch else self._begin,
            lora=None if scratch else self.lora,
            device=self.settings.device,
        )
        trainer = pipeline.resumed(
            self.console,
            title=f"{unit.title}: ",
            save_every=max(50, steps // 4),
            log_every=max(1, steps // 2),
        )
        trainer.run()
        (episode,) = self.task.episodes(places[:1])
        write_checkpoint(
            folder / RUN_CHECKPOINT,
            pipeline.averaged(),
            {self.task.id: shard.plan},
            # It knows a single task now, so it needs no prompt to identify it.
            {self.task.id: (episode, False)},
            card=f"# {self.task.id}\n\n{self.settings.source}, {unit.title}, {steps} steps of "
            f"{trained_parameters(trainer.network):,} parameters. What it could do besides is not "
            "kept.\n",
            sampler=self.checkpoint.sampler,
            returns={self.task.id: shard.returns} if reads_returns else {},
        )
        return trainer.minutes

    def _begin(self, network: GatoNetwork) -> None:
        start_from(network, self.checkpoint.network.state_dict())
