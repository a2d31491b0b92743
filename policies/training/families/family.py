"""A family of networks, as training sees it.

* :class:`Family` -- what the one trainer asks of each.
* :func:`refuse_settings`, :func:`check_family_folder` -- what several of them refuse.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from gato_gym.files.atomic_io import check_replaceable
from policies.gato.checkpoint_folder import FILES, family_of
from policies.training.config import NetworkSizes, TrainConfig, Usual
from policies.training.data.datasets import DatasetTask
from policies.training.data.packing import DocumentSampler
from policies.training.data.shards import EpisodeArrays
from policies.training.data.text_sources import TextSource
from policies.training.distributed import ProcessGroup
from policies.training.loss import LossReport

if TYPE_CHECKING:
    from policies.training.settings import TrainSettings

SizesT = TypeVar("SizesT", bound=NetworkSizes)
NetworkT = TypeVar("NetworkT", bound=nn.Module)
ShardT = TypeVar("ShardT", bound=EpisodeArrays)
BatchT = TypeVar("BatchT")
Shards = Mapping[str, ShardT]

CheckpointWriter = Callable[[Path, NetworkT, str], None]
"""Writes weights to a folder, with the text of their card."""


def refuse_settings(settings: TrainSettings, without: Sequence[str]) -> None:
    """Refuse settings that a family has no use for, where they are not the usual ones.

    Raises:
        ValueError: Names the setting.
    """
    for field in dataclasses.fields(settings):
        value, usual = getattr(settings, field.name), field.default
        if field.default_factory is not dataclasses.MISSING:
            usual = field.default_factory()
        if field.name in without and value != usual:
            raise ValueError(
                f"{field.name} is {value!r} and the family {settings.family}, which has no such "
                "setting: leave it out, or train the family gato"
            )


def check_family_folder(folder: Path, family: str) -> None:
    """Refuse to replace a folder that is not a checkpoint's of a family alone.

    Raises:
        FileExistsError: It is not.
    """
    check_replaceable(folder, FILES[family])
    if (folder / "config.json").exists() and family_of(folder) != family:
        raise FileExistsError(
            f"{folder / 'config.json'} is not a {family.upper()} checkpoint's, expected one that "
            "may be replaced: choose another folder"
        )


class Family(ABC, Generic[SizesT, NetworkT, ShardT, BatchT]):
    """What the trainer asks of a family; one object for all runs.

    Attributes:
        name: As settings have it.
        title: As texts have it.
        policy: Name of the class that plays a checkpoint.
        backbone: What the names of the matrices that Muon steps begin with.
    """

    name: str
    title: str
    policy: str
    backbone: str

    @abstractmethod
    def check_settings(self, settings: TrainSettings) -> None:
        """Refuse what the family does not do.

        Raises:
            ValueError: Names the setting.
        """

    @abstractmethod
    def take_up(self, tasks: list[DatasetTask], start: str | None) -> list[DatasetTask]:
        """The tasks as the checkpoint that a run starts from reads them."""

    @abstractmethod
    def sizes(self, settings: TrainSettings, tasks: Sequence[DatasetTask]) -> SizesT:
        """The network that is asked for, with what its tasks need.

        Raises:
            ValueError: There is no such network, or a task has no place in it.
        """

    @abstractmethod
    def usual(self, settings: TrainSettings) -> Usual:
        """Amounts of a run where the settings have None."""

    @abstractmethod
    def encode(
        self,
        tasks: Sequence[DatasetTask],
        sources: Sequence[TextSource],
        settings: TrainSettings,
        sizes: SizesT,
    ) -> tuple[dict[str, ShardT], dict[str, Any]]:
        """Shards of the tasks by id, and of texts by name; those that are there are kept."""

    @abstractmethod
    def part(self, shard: ShardT, first: int, stop: int) -> ShardT:
        """The shard of the episodes ``[first, stop)`` alone."""

    @abstractmethod
    def check_texts(self, config: TrainConfig, texts: Mapping[str, Any]) -> None:
        """Refuse texts that a batch has no room for.

        Raises:
            ValueError: There are such.
        """

    @abstractmethod
    def read_sizes(self, values: Mapping[str, Any]) -> SizesT:
        """The sizes that ``to_json`` of theirs wrote."""

    @abstractmethod
    def build(self, sizes: SizesT) -> NetworkT:
        """A network with fresh weights."""

    @abstractmethod
    def begin(self, network: NetworkT, start: str) -> None:
        """Give a network the weights of a checkpoint.

        Raises:
            ValueError: They are of a network of another kind.
        """

    @abstractmethod
    def prepare(
        self, network: NetworkT, config: TrainConfig, attention: str, device: torch.device
    ) -> None:
        """How a network computes in training.

        Raises:
            ValueError: The device does not support it.
        """

    @abstractmethod
    def divide(self, network: NetworkT, ranks: ProcessGroup, device: torch.device) -> None:
        """Have every process hold a part of the backbone (FSDP2).

        Raises:
            ValueError: The family's networks are not divided.
        """

    @abstractmethod
    def packer(
        self, config: TrainConfig, shards: Shards[ShardT], texts: Mapping[str, Any] | None
    ) -> DocumentSampler[ShardT, BatchT]:
        """What makes batches."""

    @abstractmethod
    def scale(self, config: TrainConfig, batch: BatchT) -> Tensor:
        """Scalar: the sum of a batch's weights, by which its loss is divided."""

    @abstractmethod
    def loss(
        self, network: NetworkT, batch: BatchT, config: TrainConfig, *, tasks: int
    ) -> LossReport:
        """The loss of a batch; ``tasks`` is how many sources there are."""

    @abstractmethod
    def flops(self, config: TrainConfig) -> float:
        """Floating-point operations of the forward and backward pass for a token."""

    @abstractmethod
    def describe(self, shard: ShardT) -> str:
        """How a task is read, in words."""

    @abstractmethod
    def memory(self, shard: ShardT) -> str | None:
        """The memory option of a task; None where the family has no such option."""

    def remembering(self, shard: ShardT, memory: str) -> ShardT:
        """The shard of the same timesteps with another memory option."""
        raise ValueError(f"memory is {memory!r}, and the family {self.name} has no such option")

    @abstractmethod
    def check_own_folder(self, folder: Path) -> None:
        """Refuse to replace a folder that is not a checkpoint's alone.

        Raises:
            FileExistsError: It is not.
        """

    @abstractmethod
    def writer(
        self, config: TrainConfig, tasks: Sequence[DatasetTask], shards: Shards[ShardT]
    ) -> CheckpointWriter[NetworkT]:
        """What writes a run's checkpoints."""
