"""Gato: tokens, packed sequences, cross-entropy over ids.

* :class:`GatoFamily` -- as :class:`~policies.training.families.family.Family`.
* :func:`write_checkpoint` -- a network, each task's token options and a demonstration of each task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gato_gym.episodes.episode import Episode
from gato_gym.spaces import Plan, compile_plan
from policies.gato.checkpoint import (
    check_own_folder,
    load_checkpoint,
    read_sizes,
    read_tasks,
    save_checkpoint,
)
from policies.gato.checkpoint_folder import locate_checkpoint
from policies.gato.prompts import prompt_from_episode
from policies.gato.sampling import Sampler
from policies.gato.task_specs import TaskRecord, check_sizes
from policies.model.attention import check_trainable
from policies.model.config import NetworkConfig
from policies.model.network import GatoNetwork, PackedBatch
from policies.model.transformer import compile_blocks
from policies.returns import ReturnScale
from policies.training.config import (
    TrainConfig,
    Usual,
    gato_sizes,
    network_config,
    row_length,
    usual_of_gato,
)
from policies.training.data.datasets import DatasetTask
from policies.training.data.encoding import shard_tasks
from policies.training.data.packing import Packer
from policies.training.data.shards import TaskShard
from policies.training.data.text_shards import TextShard, shard_texts
from policies.training.data.text_sources import TextSource
from policies.training.distributed import ProcessGroup, shard
from policies.training.families.family import CheckpointWriter, Family, Shards
from policies.training.initialization import start_from
from policies.training.loss import LossReport, batch_loss, loss_scale
from policies.training.metrics import flops_per_token

if TYPE_CHECKING:
    from policies.training.settings import TrainSettings

COMPILED_WIDTH = 512
"""Width from which a GPU trains compiled blocks: compiling takes half a minute."""

SAMPLER = Sampler(temperature=0.5, continuous_temperature=0.0, continuous="peak")
"""Discrete actions are sampled, which leaves loops; a robot's are the expected ones of a peak.

With seed 1, which no score is measured with, half the temperature gave 0.91 instead of 0.66 in
twelve games of Atari (5 episodes each; a quarter 0.90), and 0.82 instead of 0.83 in BabyAI (8).
"""


class GatoFamily(Family[NetworkConfig, GatoNetwork, TaskShard, PackedBatch]):
    """The networks of :class:`policies.gato.policy.GatoPolicy`."""

    name, title, policy, backbone = "gato", "Gato", "GatoPolicy", "backbone."

    def check_settings(self, settings: TrainSettings) -> None:
        """Every setting is one of Gato's."""

    def take_up(self, tasks: list[DatasetTask], start: str | None) -> list[DatasetTask]:
        """With the token options that the checkpoint has for the tasks that it knows."""
        if start is None:
            return tasks
        known = read_tasks(locate_checkpoint(start))
        return [
            dataclasses.replace(task, options=known[task.id].options) if task.id in known else task
            for task in tasks
        ]

    def sizes(self, settings: TrainSettings, tasks: Sequence[DatasetTask]) -> NetworkConfig:
        """As :meth:`Family.sizes`."""
        plans = {task.id: task.plan() for task in tasks}
        start = None if settings.start is None else read_sizes(locate_checkpoint(settings.start))
        config = network_config(settings, plans, start)
        for task, plan in plans.items():
            check_sizes(config, plan, length=row_length(settings), task=task)
        return config

    def usual(self, settings: TrainSettings) -> Usual:
        """As :meth:`Family.usual`."""
        return usual_of_gato(settings)

    def encode(
        self,
        tasks: Sequence[DatasetTask],
        sources: Sequence[TextSource],
        settings: TrainSettings,
        sizes: NetworkConfig,
    ) -> tuple[dict[str, TaskShard], dict[str, TextShard]]:
        """As :meth:`Family.encode`."""
        folder = settings.shards or settings.output / "shards"
        shards = shard_tasks(
            tasks,
            folder,
            augment=settings.augment,
            workers=settings.workers,
            rewards=sizes.return_conditioned,
        )
        return shards, shard_texts(sources, settings.output / "texts")

    def part(self, shard: TaskShard, first: int, stop: int) -> TaskShard:
        """As :meth:`Family.part`."""
        return shard.part(first, stop)

    def check_texts(self, config: TrainConfig, texts: Mapping[str, TextShard]) -> None:
        """Refuse images of which a text could not see every patch."""
        room = min(config.length, gato_sizes(config).window)
        for name, text in texts.items():
            if text.pairs:
                largest = int(np.diff(text.arrays["patch_ends"], prepend=0).max())
                if largest >= room:
                    raise ValueError(
                        f"an image of {name!r} has {largest} patches of 16 x 16 pixels: expected "
                        f"fewer than {room}, the tokens of a row and of the window; scale it down, "
                        "or use a larger --preset and --length"
                    )

    def read_sizes(self, values: Mapping[str, Any]) -> NetworkConfig:
        """As :meth:`Family.read_sizes`."""
        return NetworkConfig.from_json(dict(values))

    def build(self, sizes: NetworkConfig) -> GatoNetwork:
        """As :meth:`Family.build`."""
        return GatoNetwork(sizes)

    def begin(self, network: GatoNetwork, start: str) -> None:
        """As :meth:`Family.begin`; the network may be larger."""
        start_from(network, load_checkpoint(start).network.state_dict())

    def prepare(
        self, network: GatoNetwork, config: TrainConfig, attention: str, device: torch.device
    ) -> None:
        """As :meth:`Family.prepare`."""
        check_trainable(attention, device)
        network.backbone.recompute, network.backbone.attention = config.recompute, attention
        if device.type == "cuda" and network.config.width >= COMPILED_WIDTH:
            compile_blocks(network.backbone)

    def divide(self, network: GatoNetwork, ranks: ProcessGroup, device: torch.device) -> None:
        """As :meth:`Family.divide`."""
        shard(network.backbone, ranks, device)

    def packer(
        self,
        config: TrainConfig,
        shards: Shards[TaskShard],
        texts: Mapping[str, TextShard] | None,
    ) -> Packer:
        """As :meth:`Family.packer`."""
        return Packer(
            shards,
            config.mixture,
            gato_sizes(config),
            rows=config.rows,
            length=config.length,
            seed=config.seed,
            depth_drop=config.depth_drop,
            texts=texts,
        )

    def scale(self, config: TrainConfig, batch: PackedBatch) -> Tensor:
        """As :meth:`Family.scale`."""
        return loss_scale(gato_sizes(config), batch.targets, balance=config.balance)

    def loss(
        self, network: GatoNetwork, batch: PackedBatch, config: TrainConfig, *, tasks: int
    ) -> LossReport:
        """As :meth:`Family.loss`."""
        return batch_loss(network, network(batch), batch, config, tasks=tasks)

    def flops(self, config: TrainConfig) -> float:
        """As :meth:`Family.flops`."""
        return flops_per_token(gato_sizes(config), config.length)

    def describe(self, shard: TaskShard) -> str:
        """Its token options."""
        return f"layout {shard.plan.options.layout}, memory {shard.plan.options.memory}"

    def memory(self, shard: TaskShard) -> str | None:
        """As :meth:`Family.memory`."""
        return shard.plan.options.memory

    def remembering(self, shard: TaskShard, memory: str) -> TaskShard:
        """As :meth:`Family.remembering`."""
        plan = shard.plan
        options = dataclasses.replace(plan.options, memory=memory)
        changed = compile_plan(plan.observation_space, plan.action_space, options)
        return dataclasses.replace(shard, plan=changed)

    def check_own_folder(self, folder: Path) -> None:
        """As :meth:`Family.check_own_folder`."""
        check_own_folder(folder)

    def writer(
        self, config: TrainConfig, tasks: Sequence[DatasetTask], shards: Shards[TaskShard]
    ) -> CheckpointWriter[GatoNetwork]:
        """As :meth:`Family.writer`."""
        plans = {task.id: shards[task.id].plan for task in tasks}
        known, shares = gato_sizes(config).tasks, config.mixture.prompt_share
        returns: dict[str, ReturnScale] = {}
        if gato_sizes(config).return_conditioned:
            returns = {task.id: shards[task.id].returns for task in tasks}

        @cache
        def shown() -> dict[str, tuple[Episode | None, bool]]:
            """A task that was never trained with prompts has one only if it has to come first."""
            demonstrations: dict[str, tuple[Episode | None, bool]] = {}
            for task in tasks:
                prompted = task.id not in known and task.needs_prompt(tasks)
                is_shown = prompted or shares.get(task.group, 0.0) > 0
                demonstrations[task.id] = (task.demonstration() if is_shown else None, prompted)
            return demonstrations

        return lambda folder, network, card: write_checkpoint(
            folder, network, plans, shown(), card=card, returns=returns
        )


def write_checkpoint(
    output: Path,
    network: GatoNetwork,
    plans: Mapping[str, Plan],
    shown: Mapping[str, tuple[Episode | None, bool]],
    *,
    sampler: Sampler | None = None,
    card: str = "",
    returns: Mapping[str, ReturnScale] = MappingProxyType({}),
) -> None:
    """Write a network as a checkpoint of some tasks.

    Args:
        output: The checkpoint's folder.
        network: The weights.
        plans: The tasks' plans, by id.
        shown: Each task's demonstration, None for none, and whether the policy acts after it unless
            asked otherwise.
        sampler: How the checkpoint chooses actions; None is :data:`SAMPLER`.
        card: Text of its card.
        returns: Each task's, by id, where the network reads returns to go.
    """
    records, room = {}, network.config.prompt_tokens
    for task, plan in plans.items():
        episode, prompted = shown[task]
        prompt = None
        if episode is not None:
            prompt = prompt_from_episode(plan, episode, capacity=room, cut="end")
        records[task] = TaskRecord.of(plan, prompt, prompted=prompted, returns=returns.get(task))
    save_checkpoint(output, network, records, sampler or SAMPLER, dtype=torch.bfloat16, card=card)
