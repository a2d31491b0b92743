"""A network of your own: from Minari datasets to a checkpoint, in one folder.

* :class:`TrainRun` -- prepares, describes and trains it.
* :func:`tasks_of` -- the tasks of its datasets.

The folder holds ``shards/`` and ``texts/`` (episodes and texts as tokens), ``training/`` (what a
run is resumed from, and its metrics) and ``checkpoint/``, which the family's policy
finds by the folder's name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gato_gym.files.atomic_io import write_json
from gato_gym.files.bounded_io import as_type, read_json
from gato_gym.files.folder_lock import FolderLock
from gato_gym.seeds import TRAINING_SEEDS_START
from gato_gym.terminal import new_console
from policies.gato.checkpoint import checkpoint_digest
from policies.gato.checkpoint_folder import RUN_CHECKPOINT, RUN_STATE
from policies.training.checkpoint_scorer import CheckpointScorer, PlayedTask, playable
from policies.training.config import TrainConfig, check_same, train_config
from policies.training.data.datasets import DatasetTask, find_tasks
from policies.training.data.mixture_report import measure_mixture, mixture_table
from policies.training.data.text_sources import find_texts
from policies.training.distributed import ProcessGroup
from policies.training.export import saved_step
from policies.training.families.family import CheckpointWriter
from policies.training.families.registry import find_family
from policies.training.metrics import tensorboard_missing, wandb_missing
from policies.training.pipeline import Pipeline
from policies.training.settings import TrainSettings

SCORED_TASKS, SHORTEST_SCORED = 4, 50
"""Tasks, and steps of a run, from which on it is played unless asked."""


def run_state(output: Path) -> Path:
    """Where the run in a folder keeps what it is resumed from: of older recipes, in the folder."""
    return output if (output / "config.json").exists() else output / RUN_STATE


def tasks_of(settings: TrainSettings) -> list[DatasetTask]:
    """The tasks of a run's datasets; arguments and errors as in :func:`find_tasks`."""
    return find_tasks(
        settings.datasets,
        share=settings.kept_share,
        layout=settings.layout,
        memory=settings.memory,
        changes=settings.options,
        group_by=settings.group_by,
        workers=settings.workers,
    )


def check_known(setting: str, asked: Iterable[str], names: Sequence[str]) -> None:
    """Refuse names that nothing has.

    Raises:
        ValueError: A name is unknown.
    """
    if unknown := sorted(set(asked) - set(names)):
        raise ValueError(f"{setting} names {unknown}: expected some of {list(names)}")


class TrainRun:
    """A run in a folder of its own.

    Args:
        settings: What is asked for.
        console: Where it reports.
        tasks: Those of the datasets, as :func:`tasks_of` returns them; None reads them.
        memories: What later timesteps see, of tasks that differ from their token options in that.

    Raises:
        FileNotFoundError: A dataset is not there.
        ValueError: A dataset or a setting cannot be used, or the folder holds another run.
    """

    def __init__(
        self,
        settings: TrainSettings,
        console: Console | None = None,
        *,
        tasks: Sequence[DatasetTask] | None = None,
        memories: Mapping[str, str] | None = None,
    ) -> None:
        self.settings, self.family = settings, find_family(settings.family)
        self.family.check_settings(settings)
        self.ranks = ProcessGroup.join()
        self.console = console or new_console(quiet=bool(self.ranks.rank), soft_wrap=True)
        self.state = run_state(settings.output)
        if self.ranks.rank:
            self.ranks.wait()  # until the first process has imported what is on the hub
        self.found_tasks = tasks_of(settings) if tasks is None else list(tasks)
        if not self.ranks.rank:
            self.ranks.wait()
        ids = [task.id for task in self.found_tasks]
        check_known("tasks", settings.tasks, ids)
        self.all_tasks = self.family.take_up(self.found_tasks, settings.start)
        self.memories = dict(memories or {})
        self.tasks = [
            self._remembering(task) for task in self.all_tasks if task.id in (settings.tasks or ids)
        ]
        for task in self.tasks:
            if warning := task.filter_warning():
                self.console.print(warning, style="yellow", highlight=False, markup=False)
        self.sizes = self.family.sizes(settings, self.tasks)
        self.sources = find_texts(settings.texts, settings.pairs)
        self.identity: dict[str, Any] = {task.id: task.identity() for task in self.tasks}
        self.identity |= {source.name: source.identity() for source in self.sources}
        if settings.start is not None:
            self.identity["start"] = checkpoint_digest(settings.start)
        chosen = {name: getattr(settings, name) for name in ("augment", "held_out")}
        if any(chosen.values()):
            self.identity["episodes"] = chosen
        self._check_same_data()
        shards, self.texts = self._shards()
        self.shards, self.held_out = self._split(shards)
        self.pipeline = self._pipeline(self._config())
        self.family.check_texts(self.config, self.texts)

    @property
    def config(self) -> TrainConfig:
        """What the run's result depends on."""
        return self.pipeline.config

    def _check_same_data(self) -> None:
        path = self.state / "data.json"
        if path.exists():
            check_same(read_json(path), self.identity, self.settings.output)

    def _remembering(self, task: DatasetTask) -> DatasetTask:
        """The task with the memory that is asked of it, which changes nothing of its shard."""
        memory = self.memories.get(task.id, task.options.memory)
        options = dataclasses.replace(task.options, memory=memory)
        return dataclasses.replace(task, options=options)

    def _shards(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if not self.ranks.rank:
            texts = f" and {len(self.sources)} files of texts" if self.sources else ""
            self.console.print(f"encoding {len(self.tasks)} tasks{texts}", highlight=False)
            self._encode()
        self.ranks.wait()
        return self._encode()

    def _encode(self) -> tuple[dict[str, Any], dict[str, Any]]:
        shards, texts = self.family.encode(self.all_tasks, self.sources, self.settings, self.sizes)
        chosen = {task.id: shards[task.id] for task in self.tasks}
        for name, memory in self.memories.items():
            chosen[name] = self.family.remembering(chosen[name], memory)
        return chosen, texts

    def _split(self, whole: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is trained on, and the last episodes of each task, at least two, that are not."""
        share = self.settings.held_out
        if not share:
            return whole, {}
        first, last = {}, {}
        for name, shard in whole.items():
            total = len(shard.ends)
            cut = total - max(2, round(total * share))
            if cut < 1:
                raise ValueError(
                    f"{name!r} has {total} episodes, too few to hold {share:.0%} of them out: "
                    "expected at least 3; record more"
                )
            part = partial(self.family.part, shard)
            first[name], last[name] = part(0, cut), part(cut, total)
        return first, last

    def _config(self) -> TrainConfig:
        asked = self.settings
        groups = list(dict.fromkeys(task.group for task in self.tasks))
        names, tasks = [*groups, *self.texts], [task.id for task in self.tasks]
        if twice := sorted({*groups, *tasks} & set(self.texts)):
            raise ValueError(f"texts are named {twice} as tasks are: rename their files")
        check_known("weights", asked.weights, names)
        check_known("prompt_shares", asked.prompt_shares, groups)
        memories = {self.family.memory(shard) for shard in self.shards.values()}
        if asked.action_drop and "all" not in memories:
            raise ValueError(
                f"action_drop is {asked.action_drop} and no task remembers its actions: "
                "ask for memory 'all' (--memory all), or leave it out"
            )
        several = len(groups) < len(tasks)
        if asked.adaptive is None:
            asked = dataclasses.replace(asked, adaptive="loss" if several else "none")
        if asked.adaptive != "none" and not several:
            raise ValueError(
                f"adaptive is {asked.adaptive!r} and each task is a group of its own, whose share "
                "is fixed: use group_by 'suite' (--group-by suite), or leave it out"
            )
        of_steps = partial(
            train_config,
            asked,
            groups,
            list(self.texts),
            network=self.sizes,
            usual=self.family.usual(asked),
        )
        config = of_steps(self._steps(of_steps(10_000)))
        begun = self.state / "config.json"
        if asked.precision == "auto" and begun.exists():
            config = dataclasses.replace(config, precision=read_json(begun)["precision"])
        return config

    def _steps(self, config: TrainConfig) -> int:
        """How many there are: as asked, as the run has it, as the time allows, as is usual."""
        if self.settings.steps is not None:
            return self.settings.steps
        begun = self.state / "config.json"
        if begun.exists():
            steps = as_type(dict[str, Any], read_json(begun), str(begun)).get("steps")
            return int(as_type(int, steps, f"{begun}: steps"))
        if self.settings.minutes is None:
            return self.family.usual(self.settings).steps
        self.console.print("measuring this machine", highlight=False)
        seconds = self._pipeline(config).seconds_a_step()
        steps = torch.tensor(float(max(20, int(self.settings.minutes * 60 / seconds))))
        return int(self.ranks.sum(steps if not self.ranks.rank else steps * 0))

    def _pipeline(self, config: TrainConfig) -> Pipeline:
        asked = self.settings
        return Pipeline(
            config,
            self.shards,
            self.state,
            texts=self.texts,
            begin=None if asked.start is None else self._begin,
            device=asked.device,
            attention=asked.attention,
            fsdp=asked.fsdp,
            loaders=asked.loaders,
        )

    def _begin(self, network: Any) -> None:
        assert self.settings.start is not None
        self.family.begin(network, self.settings.start)

    def _scorer(self) -> CheckpointScorer | None:
        """What plays during training: what is asked for, or what can be played here."""
        asked = self.settings
        check_known("score_tasks", asked.score_tasks, [task.id for task in self.tasks])
        if not self._score_every:
            return None
        adaptive = self.config.adaptive is not None and self.config.adaptive.by == "scores"
        chosen = asked.score_every is not None or asked.score_tasks
        tasks = [task for task in self.tasks if task.id in (asked.score_tasks or [task.id])]
        played = []
        for task in tasks if chosen or adaptive else tasks[:SCORED_TASKS]:
            try:
                played.append(self.playable(task))
            except ValueError as error:
                if chosen:
                    raise ValueError(f"{error}; leave it out of --score-tasks") from error
                self.console.print(str(error), highlight=False, markup=False)
        if not played and adaptive:
            raise ValueError(
                "adaptive is 'scores' and none of the tasks can be played here: use --adaptive "
                "loss, or leave it out"
            )
        if not played:
            return None
        names = ", ".join(task.id for task in played)
        self.console.print(
            f"every {self._score_every} steps the network plays {asked.score_episodes} episodes of "
            f"{names}; --score-every 0 plays none",
            highlight=False,
            markup=False,
        )
        return CheckpointScorer(
            asked.output / RUN_CHECKPOINT,
            played,
            asked.score_episodes,
            self.ranks,
            first_seed=TRAINING_SEEDS_START if adaptive else 0,
        )

    def playable(self, task: DatasetTask) -> PlayedTask:
        """One of its tasks as it can be played here.

        Raises:
            ValueError: It cannot be.
        """
        shard = self.shards[task.id]
        longest = int((shard.ends - shard.starts).max())
        return playable(task, memory=self.family.memory(shard), longest=longest)

    @property
    def _score_every(self) -> int:
        """Steps between two scores; 0 plays nothing, as runs do that are too short to judge."""
        steps, adaptive = self.config.steps, self.config.adaptive
        if adaptive is not None and adaptive.by == "scores":
            return adaptive.every
        if self.settings.score_every is not None:
            return self.settings.score_every
        return math.ceil(steps / 4) if steps >= SHORTEST_SCORED or self.settings.score_tasks else 0

    def describe(self) -> None:
        """Print the mixture and what will be done with it."""
        config = self.config
        trainer = self.pipeline.trainer()
        counts = measure_mixture(trainer.packer)
        tokens = config.steps * config.rows * config.length
        before = {task.id: task.counts[1] for task in self.tasks}
        self.console.print(mixture_table(counts, tokens=tokens, all_episodes=before))
        for task in self.tasks:
            what = self.family.describe(self.shards[task.id])
            expert = max(source.expert_return for source in task.sources)
            share = max(source.share for source in task.sources)
            kept = f"episodes from {share:.0%} of it" if share else "all episodes"
            self.console.print(
                f"{task.id}: {what}; expert's windowed return {expert:.2f}, {kept} are kept",
                highlight=False,
            )
        if config.adaptive is not None:
            what = "what is left of its loss" if config.adaptive.by == "loss" else "its scores"
            self.console.print(
                f"the share of each task in its group follows {what}, from step "
                f"{config.adaptive.every} on; --adaptive none keeps the shares above",
                highlight=False,
            )
        size = sum(p.numel() for p in trainer.network.parameters())
        self.console.print(
            f"{size:,} parameters, {config.steps:,} steps of {config.rows} x {config.length} "
            f"tokens, {tokens:,} in all",
            highlight=False,
        )

    def train(self) -> Path:
        """Train to the end, or resume; returns the checkpoint's folder.

        Raises:
            KeyboardInterrupt: It was stopped; the same settings resume it.
            policies.training.trainer.NonFiniteLossError: The loss stopped being a number.
            FileExistsError: ``checkpoint/`` holds what is no checkpoint's.
            FolderInUseError: Another process trains in the folder.
            ValueError: The folder holds a run with another configuration.
        """
        with nullcontext() if self.ranks.rank else FolderLock(self.state):
            return self._train()

    def _train(self) -> Path:
        self._check_same_data()  # another run may have begun since
        checkpoint, steps = self.settings.output / RUN_CHECKPOINT, self.config.steps
        if not self.ranks.rank:
            self.family.check_own_folder(checkpoint)
        for asked, missing in (
            (self.settings.tensorboard, tensorboard_missing()),
            (self.settings.wandb, wandb_missing()),
        ):
            if asked and missing:
                self.console.print(missing, highlight=False, markup=False)
        trainer = self.pipeline.resumed(
            self.console,
            save_every=max(50, min(500, steps // 10)),
            kept_every=self.settings.keep_every,
            until=self.settings.until,
            log_every=max(1, min(50, steps // 20)),
            on_save=lambda trainer: self.export(checkpoint),
            tensorboard=self.settings.tensorboard,
            wandb=self.settings.wandb,
            score=self._scorer(),
            score_every=self._score_every,
        )
        if not self.ranks.rank:
            write_json(self.state / "data.json", self.identity)
        trainer.run()
        return checkpoint

    @cached_property
    def _write(self) -> CheckpointWriter[Any]:
        return self.family.writer(self.config, self.tasks, self.shards)

    def export(self, checkpoint: Path, *, step: int | None = None) -> Any:
        """Write the run's averaged weights as a checkpoint, and return them as a network.

        Args:
            checkpoint: The checkpoint's folder.
            step: One of the steps kept by ``keep_every``; None takes the run's last.

        Raises:
            FileNotFoundError: The run has no such step.
        """
        network = self.pipeline.averaged(step=step)
        card = self._card(saved_step(self.state) if step is None else step)
        self._write(checkpoint, network, card)
        return network

    def _card(self, step: int) -> str:
        parts = [f"- {task.id}: {task.counts[0]} episodes" for task in self.tasks]
        for name, texts in self.texts.items():
            kind = "pairs of an image and a text" if texts.pairs else "texts"
            parts.append(f"- {name}: {len(texts)} {kind}")
        names = "\n".join(parts)
        return (
            f"# {self.settings.output.name}\n\nA {self.family.title} checkpoint of size "
            f"{self.settings.preset}: "
            f"averaged weights of step {step} of {self.config.steps}, trained on\n\n{names}\n"
        )
