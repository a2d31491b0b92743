"""What the families of one task share: datasets to shards, windows, and a checkpoint's folder.

* :class:`OneTaskFamily` -- the base of ``dt`` and ``tt``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from gato_gym.spaces import Plan
from policies.gato.task_specs import TaskRecord
from policies.model.config import NetworkConfig, preset
from policies.one_task.checkpoint import OneTaskCheckpoint, save_checkpoint
from policies.training.config import NetworkSizes, TrainConfig, Usual
from policies.training.data.datasets import DatasetTask
from policies.training.data.encoding import shard_tasks
from policies.training.data.shards import TaskShard
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
from policies.training.metrics import flops_per_token
from policies.training.optimizer import OptimiserConfig

if TYPE_CHECKING:
    from policies.training.settings import TrainSettings

SizesT = TypeVar("SizesT", bound=NetworkSizes)
NetworkT = TypeVar("NetworkT", bound=nn.Module)
BatchT = TypeVar("BatchT")

WITHOUT = (
    "texts", "pairs", "start", "memory", "weights", "emphasis", "prompt_share", "prompt_shares",
    "prompt_end", "prompt_retrieved", "task_embeddings", "sigma", "soft_labels",
    "observation_weight", "return_conditioned",
    "depth_drop", "action_drop", "observation_noise", "attention", "fsdp",
)  # fmt: skip
"""Settings that these families have no use for."""

ADAMW = OptimiserConfig(name="adamw", rate=1e-4, betas=(0.9, 0.999), decay=1e-4, warmup=1000)
"""As the Decision Transformer was trained."""


class OneTaskFamily(Family[SizesT, NetworkT, TaskShard, BatchT]):
    """A family whose networks play one task each.

    Attributes:
        row_length: Tokens of a row, unless asked for.
    """

    backbone = "backbone."
    row_length: int

    @abstractmethod
    def _sizes_for(
        self, plan: Plan, network: NetworkConfig, changes: dict[str, Any], length: int
    ) -> SizesT:
        """Sizes for a plan whose rows have so many tokens; takes its own fields of ``changes``."""

    @abstractmethod
    def _blocks(self, sizes: SizesT) -> NetworkConfig:
        """Sizes of the blocks."""

    def check_settings(self, settings: TrainSettings) -> None:
        """As :meth:`Family.check_settings`."""
        refuse_settings(settings, WITHOUT)

    def take_up(self, tasks: list[DatasetTask], start: str | None) -> list[DatasetTask]:
        """As they are."""
        return tasks

    def sizes(self, settings: TrainSettings, tasks: Sequence[DatasetTask]) -> SizesT:
        """As :meth:`Family.sizes`."""
        if len(tasks) != 1:
            raise ValueError(
                f"the family {self.name} trains one task and the datasets are of "
                f"{', '.join(task.id for task in tasks)}: choose one with --tasks"
            )
        plan, base = tasks[0].plan(), preset(settings.preset)
        changes = dict(settings.network)
        values = base.to_json()
        values["numeric_features"] = settings.numeric_features
        if not plan.has_text:
            values["text_rank"] = 1  # the table of text ids is never read
        values |= {key: changes.pop(key) for key in list(changes) if key in values}
        length = settings.length or self.row_length
        return self._sizes_for(plan, NetworkConfig.from_json(values), changes, length)

    def usual(self, settings: TrainSettings) -> Usual:
        """64 windows, as the Decision Transformer was trained with."""
        return Usual(64, self.row_length, 1, 2_000, "muon", ADAMW)

    def encode(
        self,
        tasks: Sequence[DatasetTask],
        sources: Sequence[TextSource],
        settings: TrainSettings,
        sizes: SizesT,
    ) -> tuple[dict[str, TaskShard], dict[str, Any]]:
        """As :meth:`Family.encode`."""
        folder = settings.shards or settings.output / "shards"
        shards = shard_tasks(
            tasks, folder, augment=settings.augment, workers=settings.workers, rewards=True
        )
        return shards, {}

    def part(self, shard: TaskShard, first: int, stop: int) -> TaskShard:
        """As :meth:`Family.part`."""
        return shard.part(first, stop)

    def check_texts(self, config: TrainConfig, texts: Mapping[str, Any]) -> None:
        """There are none."""

    def begin(self, network: NetworkT, start: str) -> None:
        """As :meth:`Family.begin`: never, as settings with a start are refused."""
        raise ValueError(f"the family {self.name} starts from fresh weights: leave --from out")

    def prepare(
        self, network: Any, config: TrainConfig, attention: str, device: torch.device
    ) -> None:
        """As :meth:`Family.prepare`."""
        network.backbone.recompute = config.recompute

    def divide(self, network: NetworkT, ranks: ProcessGroup, device: torch.device) -> None:
        """As :meth:`Family.divide`."""
        raise ValueError(f"a network of {self.title} is not divided: leave --fsdp out")

    def scale(self, config: TrainConfig, batch: Any) -> Tensor:
        """How many timesteps, or tokens, are predicted."""
        return self._live(batch).sum().float()

    def _live(self, batch: Any) -> Tensor:
        """bool, of what is predicted: not of padding."""
        mask: Tensor = batch.mask
        return mask

    def _report(
        self, config: TrainConfig, batch: Any, errors: Tensor, score: Tensor, *, first: int
    ) -> LossReport:
        """The report of errors, and what :class:`LossReport` has beside them from ``first`` on."""
        live = self._live(batch).float()
        total = (errors * live).sum()
        sums = torch.zeros(9, device=total.device)
        with torch.no_grad():
            sums[first : first + 3] = torch.stack([live.sum(), total, (score * live).sum()])
            tasks = torch.stack([live.sum(), total])[None]
        return LossReport(total, live.sum(), sums, tasks)

    def flops(self, config: TrainConfig) -> float:
        """As :meth:`Family.flops`."""
        return flops_per_token(self._blocks(config.network), config.length)  # type: ignore[arg-type]

    def memory(self, shard: TaskShard) -> str | None:
        """Everything in the window, without a choice."""
        return None

    def check_own_folder(self, folder: Path) -> None:
        """As :meth:`Family.check_own_folder`."""
        check_family_folder(folder, self.name)

    def _ready(self, network: NetworkT, shard: TaskShard) -> NetworkT:
        """The network with what a checkpoint has of the shard beside its weights."""
        return network

    def writer(
        self, config: TrainConfig, tasks: Sequence[DatasetTask], shards: Shards[TaskShard]
    ) -> CheckpointWriter[NetworkT]:
        """As :meth:`Family.writer`."""
        ((task, shard),) = ((task.id, shards[task.id]) for task in tasks)
        record = TaskRecord.of(shard.plan, prompted=False, returns=shard.returns)

        def write(folder: Path, network: NetworkT, card: str) -> None:
            checkpoint = OneTaskCheckpoint(self._ready(network, shard), task, record, card)
            save_checkpoint(folder, self.name, config.network.to_json(), checkpoint)

        return write
