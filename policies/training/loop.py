"""The training loop: resumable, with checkpoints that appear whole or not at all.

* :class:`TrainConfig` -- everything a run depends on.
* :func:`train` -- run it, or go on with it.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file

from gato_gym import get_task
from policies.configuration import NetworkConfig
from policies.network import GatoNetwork, count_parameters
from policies.training.loss import LossReport, action_loss
from policies.training.optimiser import Optimiser, OptimiserConfig
from policies.training.packing import Mixture, Packer
from policies.training.ranks import Ranks
from policies.training.shards import TaskShard

CURVE_COLUMNS = (
    "step", "tokens", "minutes", "loss", "discrete_loss", "discrete_accuracy",
    "continuous_loss", "continuous_error", "gradient_norm",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run's result depends on.

    Attributes:
        network: The network's sizes.
        mixture: How documents are drawn.
        optimiser: Optimiser and schedule.
        steps: Updates of the whole run.
        rows: Packed sequences of a batch.
        length: Tokens of a packed sequence.
        sigma: Spread of continuous labels, in bins.
        balance: Weight of continuous action tokens against discrete ones.
        seed: Of weights and batches.
    """

    network: NetworkConfig
    mixture: Mixture
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    steps: int = 10_000
    rows: int = 16
    length: int = 256
    sigma: float = 4.0
    balance: float = 1.0
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {
            "network": self.network.to_json(),
            "mixture": dataclasses.asdict(self.mixture),
            "optimiser": dataclasses.asdict(self.optimiser),
        }
        return dict(json.loads(json.dumps(values)))


class NonFiniteLossError(RuntimeError):
    """The loss stopped being a number; no update was made with it."""


def open_shards(folder: Path, suites: list[str]) -> dict[str, TaskShard]:
    """Every shard under ``folder`` whose task is of one of these suites, by task id."""
    found = sorted(p.parent for p in folder.glob("*/meta.json") if ".partial" not in p.parent.name)
    shards = {p.name: TaskShard.open(p) for p in found if get_task(p.name).suite in suites}
    if not shards:
        raise FileNotFoundError(
            f"no shard of suites {suites} under {folder}: "
            "make them with python -m policies.training.shards"
        )
    return shards


class Trainer:
    """One run in a folder.

    Args:
        config: What to train.
        shards: On what, by task id.
        output: The run's folder: ``config.json``, ``curve.csv``, ``last/``.
        every: Steps between two checkpoints.
        kept_every: Steps between two sets of averaged weights that are kept.
        compiled: Whether to fuse the network with ``torch.compile``.
    """

    def __init__(
        self,
        config: TrainConfig,
        shards: dict[str, TaskShard],
        output: Path,
        *,
        every: int = 100,
        kept_every: int = 400,
        compiled: bool = False,
    ) -> None:
        self.config, self.output = config, output
        self.every, self.kept_every = every, kept_every
        torch.manual_seed(config.seed)
        self.network = GatoNetwork(config.network)
        self.optimiser = Optimiser(self.network, config.optimiser, total=config.steps)
        suites = {task: get_task(task).suite for task in shards}
        self.packer = Packer(
            shards,
            suites,
            config.mixture,
            config.network,
            rows=config.rows,
            length=config.length,
            seed=config.seed,
        )
        if compiled:
            self.network.backbone.compile(dynamic=False)
        self.step, self.minutes = 0, 0.0
        self.ranks = Ranks.join()

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
        last = self.output / "last"
        if not last.exists():
            return
        self.network.load_state_dict(load_file(last / "model.safetensors"), strict=True)
        self.optimiser.load(load_file(last / "optimiser.safetensors"))
        progress = json.loads((last / "progress.json").read_text())
        self.step, self.minutes = progress["step"], progress["minutes"]
        if not self.ranks.rank:
            _cut_curve(self.output / "curve.csv", self.step)

    def save(self) -> None:
        """Write ``last/`` under a temporary name and put it in place of the previous one."""
        if self.ranks.rank:
            return
        temporary, last = self.output / "last.partial", self.output / "last"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        weights = {n: t.contiguous() for n, t in self.network.state_dict().items()}
        save_file(weights, temporary / "model.safetensors")
        state = {n: t.contiguous() for n, t in self.optimiser.tensors().items()}
        save_file(state, temporary / "optimiser.safetensors")
        progress = {"step": self.step, "minutes": self.minutes}
        (temporary / "progress.json").write_text(json.dumps(progress))
        previous = self.output / "previous"
        shutil.rmtree(previous, ignore_errors=True)
        if last.exists():
            os.replace(last, previous)
        os.replace(temporary, last)
        shutil.rmtree(previous, ignore_errors=True)

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
        batch = self.packer.batch(self.step, rank=self.ranks.rank, world=self.ranks.world)
        report = action_loss(
            self.network,
            self.network(batch),
            batch.targets,
            sigma=self.config.sigma,
            balance=self.config.balance,
        )
        scale = self.ranks.sum(report.scale)
        (report.total / scale).backward()
        report = LossReport(
            self.ranks.sum(report.total.detach()), scale, self.ranks.sum(report.sums)
        )
        if not math.isfinite(float(report.total)):
            raise NonFiniteLossError(
                f"the loss is {float(report.total)} at step {self.step}: the weights were not "
                f"touched; the last good checkpoint is {self.output / 'last'}"
            )
        self.ranks.sum_gradients(self.network)
        norm = self.optimiser.step(self.step)
        self.step += 1
        return report, norm

    def run(self) -> None:
        """Train to the last step; on Ctrl-C save and stop."""
        curve = _Curve(self.output / "curve.csv", self.config)
        shown = not self.ranks.rank
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, refresh_per_second=1, disable=not shown) as progress:
            bar = progress.add_task("train", total=self.config.steps, completed=self.step)
            try:
                while self.step < self.config.steps:
                    begun = time.perf_counter()
                    report, norm = self.update()
                    self.minutes += (time.perf_counter() - begun) / 60
                    line = curve.add(self.step, self.minutes, report, norm) if shown else ""
                    if line:
                        progress.console.print(line, highlight=False, soft_wrap=True)
                    progress.update(bar, completed=self.step)
                    if self.step % self.every == 0:
                        self.save()
                    if self.step % self.kept_every == 0:
                        self.keep()
            except KeyboardInterrupt:
                progress.console.print(f"stopped at step {self.step}: run again to go on")
                self.save()
                raise
        self.save()


class _Curve:
    """Averages reports over a stretch of steps and appends them to a CSV file."""

    def __init__(self, path: Path, config: TrainConfig, stretch: int = 50) -> None:
        self.path, self.stretch = path, stretch
        self.tokens = config.rows * config.length
        self.sums, self.losses, self.norms = torch.zeros(6), [0.0][:0], [0.0][:0]
        if not path.exists():
            with path.open("w", newline="") as file:
                csv.writer(file).writerow(CURVE_COLUMNS)

    def add(self, step: int, minutes: float, report: LossReport, norm: float) -> str:
        """Take a report; returns a line to print when a stretch is complete, else ''."""
        self.sums += report.sums
        self.losses.append(float(report.total / report.scale))
        self.norms.append(norm)
        if step % self.stretch:
            return ""
        s = self.sums.tolist()
        count = len(self.losses)
        row = (
            step, step * self.tokens, round(minutes, 3), sum(self.losses) / count,
            s[1] / max(s[0], 1e-9), s[2] / max(s[0], 1e-9),
            s[4] / max(s[3], 1e-9), s[5] / max(s[3], 1e-9), sum(self.norms) / count,
        )  # fmt: skip
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([f"{v:.6g}" for v in row])
        self.sums, self.losses, self.norms = torch.zeros(6), [], []
        return (
            f"step {step}  {row[2]:.1f} min  loss {row[3]:.4f}  discrete {row[4]:.4f} "
            f"accuracy {row[5]:.4f}  continuous {row[6]:.4f} error {row[7]:.4f}  norm {row[8]:.2f}"
        )


def _cut_curve(path: Path, step: int) -> None:
    """Drop rows that a resumed run will write again."""
    if path.exists():
        header, *rows = path.read_text().splitlines()
        kept = [row for row in rows if int(float(row.split(",")[0])) <= step]
        path.write_text("\n".join([header, *kept]) + "\n")


def check_same_config(found: dict[str, Any], wanted: dict[str, Any], output: Path) -> None:
    """Refuse to go on with a run under another configuration, naming each difference.

    Raises:
        ValueError: Any value differs.
    """
    flat_found, flat_wanted = _flatten(found), _flatten(wanted)
    differences = [
        f"{key}: {flat_found.get(key)!r} there, {flat_wanted.get(key)!r} now"
        for key in sorted(flat_found.keys() | flat_wanted.keys())
        if flat_found.get(key) != flat_wanted.get(key)
    ]
    if differences:
        raise ValueError(
            f"{output} holds a run with another configuration ({'; '.join(differences)}): "
            "use its settings to go on, or another --output"
        )


def _flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


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
