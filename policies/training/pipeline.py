"""From shards to a checkpoint: the one way in which a network is trained.

* :class:`Pipeline` -- a configuration and its shards, in a run's folder.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from policies.training.config import TrainConfig
from policies.training.export import averaged_network
from policies.training.lora import LowRank, merged
from policies.training.trainer import Trainer

CALIBRATION_SECONDS = 4.0


@dataclass(frozen=True)
class Pipeline:
    """A configuration and its shards, in a run's folder.

    Attributes:
        config: What to train.
        shards: On what, by task id.
        state: Folder of what the run is resumed from.
        texts: Texts and pairs to train on beside the tasks, by name.
        begin: Gives a fresh network the weights that it starts from; None keeps the fresh ones.
        lora: Trains low-rank updates of these weights; None trains all of them.
        device, attention, fsdp, loaders: As in :class:`~policies.training.trainer.Trainer`.
    """

    config: TrainConfig
    shards: Mapping[str, Any]
    state: Path
    texts: Mapping[str, Any] = field(default_factory=dict)
    begin: Callable[[Any], None] | None = None
    lora: LowRank | None = None
    device: str = "auto"
    attention: str = "auto"
    fsdp: bool = False
    loaders: int | None = None

    def trainer(self, output: Path | None = None, **more: Any) -> Trainer:
        """A trainer in ``output``, or in ``state``.

        Args:
            output: Its folder.
            more: Other arguments of :class:`~policies.training.trainer.Trainer`.
        """
        return Trainer(
            self.config,
            self.shards,
            output or self.state,
            device=self.device,
            attention=self.attention,
            fsdp=self.fsdp,
            loaders=self.loaders,
            texts=self.texts,
            begin=self._begin,
            **more,
        )

    def _begin(self, network: Any) -> None:
        if self.begin is not None:
            self.begin(network)
        if self.lora is not None:
            self.lora.add(network)

    def seconds_a_step(self) -> float:
        """How long an update takes here, measured; with several processes, in each."""
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trainer(Path(folder))
            with trainer.batches:
                for _ in range(2):
                    trainer.update()
                begun, count = time.perf_counter(), 0
                while count < 5 or (
                    trainer.ranks.world == 1 and time.perf_counter() - begun < CALIBRATION_SECONDS
                ):
                    trainer.update()
                    count += 1
                return (time.perf_counter() - begun) / count

    def resumed(self, console: Console, *, title: str = "", **more: Any) -> Trainer:
        """A trainer that has taken up the run in ``state``, if there is one.

        Args:
            console: Where it reports.
            title: What is resumed, where several runs report.
            more: Other arguments of :class:`~policies.training.trainer.Trainer`.

        Raises:
            ValueError: The folder holds a run with another configuration.
        """
        trainer = self.trainer(**more)
        trainer.resume()
        if trainer.step:
            console.print(f"{title}resuming at step {trainer.step}", highlight=False, markup=False)
        return trainer

    def averaged(self, *, step: int | None = None) -> Any:
        """The run's averaged weights, with low-rank updates added in, for a checkpoint.

        Args:
            step: One of the steps kept by ``kept_every``; None takes the run's last.

        Raises:
            FileNotFoundError: The run has no such step.
        """
        if self.lora is None:
            return averaged_network(self.state, step=step)
        return merged(averaged_network(self.state, step=step, prepare=self.lora.add))
