"""JAT: an embedding an observation and an action, regression, observation prediction.

* :class:`JatFamily` -- as :class:`~policies.training.families.family.Family`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gato_gym.files.atomic_io import file_name
from gato_gym.files.bounded_io import as_type
from policies.gato.checkpoint_folder import locate_checkpoint
from policies.jat.checkpoint import load_checkpoint, read_configuration, save_checkpoint
from policies.jat.config import JatConfig, preset
from policies.jat.gpt2_text import Gpt2Tokenizer
from policies.jat.modalities import Modalities
from policies.jat.network import JatNetwork
from policies.training.config import TrainConfig, Usual
from policies.training.data.datasets import DatasetTask
from policies.training.data.jat_batches import JatBatch, JatPacker
from policies.training.data.jat_shards import JatShard, shard_jat_tasks
from policies.training.data.jat_texts import JatTexts, shard_jat_texts
from policies.training.data.text_sources import TextSource
from policies.training.distributed import ProcessGroup
from policies.training.families.family import (
    CheckpointWriter,
    Family,
    Shards,
    check_family_folder,
    refuse_settings,
)
from policies.training.loss import LossReport
from policies.training.optimizer import OptimiserConfig

if TYPE_CHECKING:
    from policies.training.settings import TrainSettings

LEARNED_TEXTS = 10_000
"""Texts that text tokens are learned from, the first ones."""

KAPPA = 0.005
"""Share of the loss that is the next observation's, as published."""

WITHOUT = (
    "layout", "memory", "options", "prompt_share", "prompt_shares", "prompt_end",
    "prompt_retrieved", "task_embeddings", "sigma", "soft_labels", "depth_drop", "action_drop",
    "observation_noise", "numeric_features", "attention", "fsdp", "return_conditioned",
)  # fmt: skip
"""Settings that this family has no use for."""


class JatFamily(Family[JatConfig, JatNetwork, JatShard, JatBatch]):
    """The networks of :class:`policies.jat.policy.JatPolicy`."""

    name, title, policy, backbone = "jat", "JAT", "JatPolicy", "transformer.h."

    def check_settings(self, settings: TrainSettings) -> None:
        """As :meth:`Family.check_settings`."""
        refuse_settings(settings, WITHOUT)

    def take_up(self, tasks: list[DatasetTask], start: str | None) -> list[DatasetTask]:
        """As they are."""
        return tasks

    def sizes(self, settings: TrainSettings, tasks: Sequence[DatasetTask]) -> JatConfig:
        """As :meth:`Family.sizes`."""
        base, tokenizer = preset(settings.preset), None
        if settings.start is not None:
            base, tokenizer = read_configuration(locate_checkpoint(settings.start))
        kappa = settings.observation_weight
        if kappa is None:
            kappa = KAPPA if settings.start is None else base.observation_loss_coef
        shares = {"observation_loss_coef": kappa, "action_loss_coef": 1 - kappa}
        changes = {**dataclasses.asdict(base), **shares, **settings.network}
        config: JatConfig = as_type(JatConfig, changes, "network")
        _modalities(tasks, config, tokenizer or Gpt2Tokenizer.of_bytes())
        return config

    def usual(self, settings: TrainSettings) -> Usual:
        """As published for the published sizes, AdamW with a linear schedule."""
        adamw = OptimiserConfig(
            name="adamw", rate=5e-5, betas=(0.9, 0.999), decay=0.0, warmup=0, cooldown=1.0
        )
        if settings.preset == "published":
            return Usual(320, 512, 20, 250_000, "paper", adamw, shortest=2)
        return Usual(8, 256, 1, 2_000, "muon", adamw, shortest=2)  # one timestep

    def encode(
        self,
        tasks: Sequence[DatasetTask],
        sources: Sequence[TextSource],
        settings: TrainSettings,
        sizes: JatConfig,
    ) -> tuple[dict[str, JatShard], dict[str, JatTexts]]:
        """As :meth:`Family.encode`; text tokens are a checkpoint's, or learned from the texts."""
        place, tokenizer = (settings.shards or settings.output / "shards") / "jat", None
        modalities = _modalities(tasks, sizes, Gpt2Tokenizer.of_bytes())
        options: dict[str, Any] = {"augment": settings.augment, "workers": settings.workers}
        shard_jat_tasks(tasks, modalities, place, **options)
        shards = {name: JatShard.open(place / file_name(name), m) for name, m in modalities.items()}
        if settings.start is not None:
            tokenizer = read_configuration(locate_checkpoint(settings.start))[1]
        texts = shard_jat_texts(sources, settings.output / "texts" / "jat", sizes)
        if tokenizer is None:
            missions = (text for shard in shards.values() for text in shard.texts)
            said = (text for part in texts.values() for text in part.texts)
            every = islice(chain(missions, said), LEARNED_TEXTS)
            tokenizer = Gpt2Tokenizer.learned(every, sizes.eos_token_id)
        return {
            name: dataclasses.replace(
                shard, modalities=dataclasses.replace(shard.modalities, tokenizer=tokenizer)
            )
            for name, shard in shards.items()
        }, {name: dataclasses.replace(part, tokenizer=tokenizer) for name, part in texts.items()}

    def check_texts(self, config: TrainConfig, texts: Mapping[str, JatTexts]) -> None:
        """Refuse images that have no room for a text after them."""
        room = min(config.length, _sizes(config).max_position_embeddings) - 2
        for name, part in texts.items():
            if part.patches > room:
                raise ValueError(
                    f"an image of {name!r} has {part.patches} patches: expected at most {room}, "
                    "with two tokens of text in a row and in the network's positions; use a "
                    "smaller image_size or more max_position_embeddings (--network), or a larger "
                    "--length"
                )

    def part(self, shard: JatShard, first: int, stop: int) -> JatShard:
        """As :meth:`Family.part`."""
        return shard.part(first, stop)

    def read_sizes(self, values: Mapping[str, Any]) -> JatConfig:
        """As :meth:`Family.read_sizes`."""
        return JatConfig.from_json(values)

    def build(self, sizes: JatConfig) -> JatNetwork:
        """As :meth:`Family.build`."""
        return JatNetwork(sizes)

    def begin(self, network: JatNetwork, start: str) -> None:
        """As :meth:`Family.begin`; the network is of the same sizes."""
        weights, expected = load_checkpoint(start).network.state_dict(), network.state_dict()
        for name in expected:
            if name not in weights or weights[name].shape != expected[name].shape:
                raise ValueError(
                    f"{start} and the network differ in {name}: expected the same sizes; leave "
                    "--network out"
                )
        network.load_state_dict(weights)

    def prepare(
        self, network: JatNetwork, config: TrainConfig, attention: str, device: torch.device
    ) -> None:
        """As :meth:`Family.prepare`."""
        network.transformer.recompute = config.recompute

    def divide(self, network: JatNetwork, ranks: ProcessGroup, device: torch.device) -> None:
        """As :meth:`Family.divide`."""
        raise ValueError("a network of JAT is not divided among processes: leave --fsdp out")

    def packer(
        self, config: TrainConfig, shards: Shards[JatShard], texts: Mapping[str, JatTexts] | None
    ) -> JatPacker:
        """As :meth:`Family.packer`."""
        return JatPacker(
            shards,
            config.mixture,
            rows=config.rows,
            length=config.length,
            seed=config.seed,
            positions=_sizes(config).max_position_embeddings,
            texts=texts,
        )

    def scale(self, config: TrainConfig, batch: JatBatch) -> Tensor:
        """How many timesteps there are, and tokens of texts that are predicted."""
        masks = [group.mask for group in batch.groups.values()]
        masks += [texts.mask[:, 1:] for texts in batch.texts.values() if texts.mask is not None]
        return torch.stack([mask.sum() for mask in masks if mask is not None]).sum().float()

    def loss(
        self, network: JatNetwork, batch: JatBatch, config: TrainConfig, *, tasks: int
    ) -> LossReport:
        """Each timestep's action and next observation in the published shares, each text's token.

        A token of a text counts as much as a timestep of a task of weight 1.
        """
        sizes, device = network.config, next(iter(batch.tasks.values())).device
        total, sums, by_task = (
            torch.zeros(shape, device=device) for shape in ((), (9,), (tasks, 2))
        )
        for kind, group in batch.groups.items():
            errors = network.errors(group)
            assert group.mask is not None
            assert group.weights is not None
            live, weights = group.mask.float(), group.weights * group.mask
            losses = sizes.action_loss_coef * errors.actions * weights
            if errors.observations is not None:
                following = errors.observations * weights[:, 1:]
                losses = losses + F.pad(sizes.observation_loss_coef * following, (1, 0))
            total = total + losses.sum()
            with torch.no_grad():
                discrete = group.discrete_actions is not None
                score = 1 - errors.misses if discrete else errors.misses
                parts = [live.sum(), (errors.actions * live).sum(), (score * live).sum()]
                first = 0 if discrete else 3
                sums[first : first + 3] += torch.stack(parts)
                both = torch.stack([live.sum(1), losses.sum(1)], 1)
                by_task.index_add_(0, batch.tasks[kind], both)
        for kind, texts in batch.texts.items():
            assert texts.mask is not None
            live = texts.mask[:, 1:].float()
            wrong, misses = network.text_errors(texts)
            total = total + (wrong * live).sum()
            with torch.no_grad():
                said = [live.sum(), (wrong * live).sum(), ((1 - misses) * live).sum()]
                sums[6:] += torch.stack(said)
                both = torch.stack([live.sum(1), (wrong * live).sum(1)], 1)
                by_task.index_add_(0, batch.tasks[kind], both)
        return LossReport(total, self.scale(config, batch).to(total), sums, by_task)

    def flops(self, config: TrainConfig) -> float:
        """As Gato's, of the blocks' matrices and attention alone."""
        sizes = _sizes(config)
        width, length = sizes.hidden_size, min(config.length, sizes.max_position_embeddings)
        weights = width * (4 * width + 2 * sizes.feed_forward)
        return float(sizes.num_layers * (6 * weights + 12 * width * length))

    def describe(self, shard: JatShard) -> str:
        """What it observes and chooses."""
        modalities = shard.modalities
        return f"{modalities.observation} observations, {modalities.action} actions"

    def memory(self, shard: JatShard) -> str | None:
        """Everything in the window, without a choice."""
        return None

    def check_own_folder(self, folder: Path) -> None:
        """As :meth:`Family.check_own_folder`."""
        check_family_folder(folder, self.name)

    def writer(
        self, config: TrainConfig, tasks: Sequence[DatasetTask], shards: Shards[JatShard]
    ) -> CheckpointWriter[JatNetwork]:
        """As :meth:`Family.writer`."""
        tokenizer = next(iter(shards.values())).modalities.tokenizer  # all have the same
        spaces = {task.id: (task.observation_space, task.action_space) for task in tasks}
        return lambda folder, network, card: save_checkpoint(
            folder, network, tokenizer, card=card, spaces=spaces, dtype=torch.bfloat16
        )


def _sizes(config: TrainConfig) -> JatConfig:
    assert isinstance(config.network, JatConfig)
    return config.network


def _modalities(
    tasks: Sequence[DatasetTask], sizes: JatConfig, tokenizer: Gpt2Tokenizer
) -> dict[str, Modalities]:
    """What each task observes and chooses."""
    modalities = {}
    for task in tasks:
        try:
            spaces = task.observation_space, task.action_space
            modalities[task.id] = Modalities.of(*spaces, sizes, tokenizer)
        except ValueError as error:
            raise ValueError(f"JAT cannot be trained on {task.id!r}: {error}") from error
    return modalities
