"""The training loop: resumable, with checkpoints that appear whole or not at all.

* :class:`Trainer` -- one run in a folder.
* :func:`train` -- run it, or go on with it.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NoReturn

import torch
from safetensors.torch import load_file, save_file

from policies.folders import appearing, surviving
from policies.masks import check_trainable
from policies.network import GatoNetwork, PackedBatch, count_parameters
from policies.training.config import TrainConfig, as_begun, check_same_config
from policies.training.curve import Curve, bars, cut_curve
from policies.training.interrupts import Interrupts
from policies.training.loss import LossReport, batch_loss, loss_scale
from policies.training.optimiser import Optimiser
from policies.training.packing import Packer
from policies.training.ranks import Ranks
from policies.training.shards import TaskShard, meta_group
from policies.training.texts import TextShard


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient stopped being a number; no update was made with it."""


def open_shards(folder: Path, groups: Collection[str]) -> dict[str, TaskShard]:
    """Every shard under ``folder`` whose task is of one of these groups, by task id.

    Raises:
        FileNotFoundError: There is none.
    """
    shards = {}
    for path in sorted(folder.glob("*/meta.json")):
        if ".partial" not in path.parent.name and _group_of(path) in groups:
            shard = TaskShard.open(path.parent)
            shards[shard.task] = shard
    if not shards:
        raise FileNotFoundError(
            f"no shard of {sorted(groups)} under {folder}: "
            "make them with python -m policies.training.shards"
        )
    return shards


def _group_of(path: Path) -> str:
    return meta_group(json.loads(path.read_text()))


def _device(name: str, ranks: Ranks) -> torch.device:
    if name == "auto":
        name = f"cuda:{ranks.local}" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Trainer:
    """One run in a folder.

    Args:
        config: What to train.
        shards: On what, by task id.
        output: The run's folder: ``config.json``, ``curve.csv``, ``last/``.
        every: Steps between two checkpoints.
        kept_every: Steps between two sets of averaged weights that are kept; None keeps none.
        compiled: Whether to fuse the network with ``torch.compile``.
        stretch: Steps that a line of the curve is the average of.
        device: "cpu", "cuda", or "auto": a GPU where there is one.
        attention: How attention is computed, see :data:`policies.masks.ATTENTIONS`.
        on_save: Called after each checkpoint, in the first process.
        texts: Texts and pairs to train on beside the tasks, by name.
    """

    def __init__(
        self,
        config: TrainConfig,
        shards: dict[str, TaskShard],
        output: Path,
        *,
        every: int = 100,
        kept_every: int | None = 400,
        compiled: bool = False,
        stretch: int = 50,
        device: str = "auto",
        attention: str = "auto",
        on_save: Callable[[Trainer], None] | None = None,
        texts: Mapping[str, TextShard] | None = None,
    ) -> None:
        self.config, self.output = config, output
        self.every, self.kept_every, self.stretch = every, kept_every, stretch
        self.on_save = on_save
        self.ranks = Ranks.join()
        self.device = _device(device, self.ranks)
        check_trainable(attention, self.device)
        torch.manual_seed(config.seed)
        self.network = GatoNetwork(config.network).to(self.device)
        self.network.backbone.recompute = config.recompute
        self.network.backbone.attention = attention
        self.optimiser = Optimiser(self.network, config.optimiser, total=config.steps)
        self.packer = Packer(
            shards,
            {task: shard.group for task, shard in shards.items()},
            config.mixture,
            config.network,
            rows=config.rows,
            length=config.length,
            seed=config.seed,
            depth_drop=config.depth_drop,
            texts=texts,
        )
        if compiled:
            self.network.backbone.compile(dynamic=False)
        self.step, self.minutes, self.saved = 0, 0.0, -1

    def resume(self) -> None:
        """Take up the run in the output folder, if there is one.

        Raises:
            ValueError: It was begun with another configuration.
        """
        found = self.output / "config.json"
        wanted = self.config.to_json()
        if found.exists():
            check_same_config(json.loads(found.read_text()), wanted, self.output)
        self.output.mkdir(parents=True, exist_ok=True)
        if not self.ranks.rank and not found.exists():
            found.write_text(json.dumps(wanted, indent=1))
        self.ranks.wait()
        last = surviving(self.output / "last")
        if not last.exists():
            return
        self.network.load_state_dict(load_file(last / "model.safetensors"), strict=True)
        self.optimiser.load(load_file(last / "optimiser.safetensors"))
        progress = json.loads((last / "progress.json").read_text())
        self.step, self.minutes = progress["step"], progress["minutes"]
        if not self.ranks.rank:
            cut_curve(self.output / "curve.csv", self.step)

    def save(self) -> None:
        """Write ``last/``, which a process killed meanwhile leaves as it was."""
        self.saved = self.step
        if self.ranks.rank:
            return
        with appearing(self.output / "last") as folder:
            weights = {n: t.contiguous() for n, t in self.network.state_dict().items()}
            save_file(weights, folder / "model.safetensors")
            state = {n: t.contiguous() for n, t in self.optimiser.tensors().items()}
            save_file(state, folder / "optimiser.safetensors")
            progress = {"step": self.step, "minutes": self.minutes}
            (folder / "progress.json").write_text(json.dumps(progress))
        if self.on_save is not None:
            self.on_save(self)

    def keep(self) -> None:
        """Keep the averaged weights of this step, for the learning curve."""
        if self.ranks.rank:
            return
        folder = self.output / "kept"
        folder.mkdir(exist_ok=True)
        weights = {n: t.to(torch.bfloat16) for n, t in self.optimiser.average.items()}
        temporary = folder / ".partial"
        save_file(weights, temporary)
        os.replace(temporary, folder / f"step-{self.step:06d}.safetensors")

    def update(self) -> tuple[LossReport, float]:
        """One step: batch, loss, update. With several processes each has its share of the rows.

        Raises:
            NonFiniteLossError: Before the weights are touched.
        """
        parts = self.config.accumulate
        world, first = self.ranks.world * parts, self.ranks.rank * parts
        batches = [
            self.packer.batch(self.step, rank=first + part, world=world) for part in range(parts)
        ]
        balance = self.config.balance
        scales = [loss_scale(self.network.config, b.targets, balance=balance) for b in batches]
        scale = self.ranks.sum(torch.stack(scales).sum()).to(self.device)
        totals, sums = [], []
        for batch in batches:
            report = self._loss(batch.to(self.device))
            (report.total / scale).backward()
            totals.append(report.total.detach())
            sums.append(report.sums)
        total = self.ranks.sum(torch.stack(totals).sum())
        if not math.isfinite(float(total)):
            self._refuse(f"the loss is {float(total)}", batches)
        self.ranks.sum_gradients(self.network)
        norm = self.optimiser.clip()
        if not math.isfinite(norm):
            self._refuse(f"the gradient's norm is {norm}", batches)
        self.optimiser.step(self.step)
        self.step += 1
        return LossReport(total, scale, self.ranks.sum(torch.stack(sums).sum(0))), norm

    def _loss(self, batch: PackedBatch) -> LossReport:
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            return batch_loss(self.network, self.network(batch), batch, self.config)

    def _refuse(self, what: str, batches: list[PackedBatch]) -> NoReturn:
        self.network.zero_grad(set_to_none=True)
        tasks = sorted(set().union(*(batch.task_tokens for batch in batches)))
        last = surviving(self.output / "last")
        good = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint"
        raise NonFiniteLossError(
            f"{what} at step {self.step}, in a batch of {', '.join(tasks)}: the weights were not "
            f"touched; {good}. Look for extreme numbers in these datasets, or use a smaller "
            "learning rate"
        )

    def run(self) -> None:
        """Train to the last step; on Ctrl-C finish the step, save and stop.

        Raises:
            KeyboardInterrupt: The run was stopped, and saved.
            NonFiniteLossError: It cannot go on.
        """
        tokens = self.config.rows * self.config.length
        curve = Curve(self.output / "curve.csv", tokens=tokens, stretch=self.stretch)
        shown = not self.ranks.rank
        with bars(shown=shown) as progress, Interrupts() as interrupts:
            bar = progress.add_task(
                "train", total=self.config.steps, completed=self.step, state="first step"
            )
            while self.step < self.config.steps:
                begun = time.perf_counter()
                report, norm = self.update()
                seconds = time.perf_counter() - begun
                self.minutes += seconds / 60
                line = curve.add(self.step, self.minutes, report, norm) if shown else ""
                if line:
                    progress.console.print(line, highlight=False, soft_wrap=True)
                loss = float(report.total / report.scale)
                state = f"loss {loss:.3f}  {tokens / seconds:,.0f} tokens/s"
                progress.update(bar, completed=self.step, state=state)
                stop = self._any(interrupts.asked)
                if stop or self.step % self.every == 0:
                    self.save()
                if self.kept_every and self.step % self.kept_every == 0:
                    self.keep()
                if stop and self.step < self.config.steps:
                    progress.console.print(f"stopped at step {self.step}: run again to go on")
                    raise KeyboardInterrupt
        if self.saved != self.step:
            self.save()

    def _any(self, asked: bool) -> bool:
        """Whether any process was asked to stop: they stop at the same step."""
        if self.ranks.world == 1:
            return asked
        return bool(self.ranks.sum(torch.tensor(float(asked), device=self.device)))


def train(
    config: TrainConfig, shards_folder: Path, output: Path, *, every: int = 100,
    compiled: bool = False,
) -> GatoNetwork:  # fmt: skip
    """Train, or go on with the run in ``output``.

    Args:
        config: What to train.
        shards_folder: Folder of shards; suites are the mixture's.
        output: The run's folder.
        every: Steps between two checkpoints.
        compiled: Whether to fuse the backbone with ``torch.compile``.

    Returns:
        The network with its averaged weights.
    """
    shards = open_shards(shards_folder, sorted(config.mixture.weights))
    config = as_begun(config, output)
    trainer = Trainer(config, shards, output, every=every, compiled=compiled)
    trainer.resume()
    if not trainer.ranks.rank:
        size = count_parameters(trainer.network)
        print(f"{size:,} parameters, {len(shards)} tasks, from step {trainer.step}", flush=True)
    trainer.run()
    trainer.network.load_state_dict(
        {**trainer.network.state_dict(), **trainer.optimiser.average}, strict=True
    )
    return trainer.network
