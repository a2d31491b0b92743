"""Speeds of training, each against another way or a limit, in one run.

* :func:`trainer_and_loader` -- the trainer against its network on one batch, and batches against
  the trainer.
* :func:`share_of_peak` -- a training step's matrix products against one large product.
* :func:`shipped_shape` -- the same of the trainer, for the shipped network in larger and larger
  batches.
* :func:`left_out` -- sizes that this machine is not asked for, and why.

The task has 17 numbers to see and 6 to choose, as HalfCheetah's, and remembers every token.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces

from benchmarks.speed.comparison import Comparison, Way, compare
from gato_gym.episodes.episode import Episode
from gato_gym.options import PlanOptions
from gato_gym.spaces import compile_plan
from policies.gato.checkpoint import load_checkpoint
from policies.model.config import PAPER_SIZES, PRESETS, preset
from policies.training.config import TrainConfig
from policies.training.data.packing import Mixture
from policies.training.data.shards import FILES, TaskShard, load_arrays, write_shard
from policies.training.loss import action_loss
from policies.training.metrics import SIZES, finish, product
from policies.training.optimizer import OptimiserConfig, published
from policies.training.trainer import Trainer

TASK, SHIPPED = "numbers", "gato-mini"

SMALL = {"cpu": (8, 256), "cuda": (64, 1024)}
"""Rows and length of a batch, by kind of device."""

BATCHES = {
    "cpu": {"small": (4, 256), "79m": (1, 256), "364m": (1, 128), "1.18b": (1, 64)},
    "cuda": {"79m": (32, 1024), "364m": (16, 1024), "1.18b": (4, 1024)},
}
"""The same, of presets that are too large for that."""

SHIPPED_BATCHES = {
    "cpu": ((2, 128), (8, 128), (32, 128), (64, 128), (128, 128)),
    "cuda": ((64, 128), (192, 128), (768, 128)),
}
"""Rows and length of the batches of :func:`shipped_shape`, by kind of device."""

BILLION = "1.18b"

PACKED = 10
"""Batches that are packed while the trainer makes a step."""


def write_episodes(folder: Path, *, episodes: int = 20, steps: int = 400) -> TaskShard:
    """A shard of random episodes."""
    generator = np.random.default_rng(0)
    seen = spaces.Box(-np.inf, np.inf, (17,), np.float64)
    chosen = spaces.Box(-1.0, 1.0, (6,), np.float32)
    arrays = (
        Episode(
            TASK,
            generator.normal(size=(steps + 1, 17)),
            generator.uniform(-1, 1, (steps, 6)).astype(np.float32),
            np.zeros(steps, np.float32),
            np.zeros(steps, np.bool_),
            np.arange(steps) == steps - 1,
        )
        for _ in range(episodes)
    )
    plan = compile_plan(seen, chosen, PlanOptions(memory="all"))
    write_shard(folder / TASK, plan, arrays, {})
    return TaskShard(TASK, plan, load_arrays(folder / TASK, FILES), TASK)


def make_trainer(
    name: str,
    shard: TaskShard,
    folder: Path,
    *,
    device: torch.device,
    batch: tuple[int, int] | None = None,
    precision: str | None = None,
) -> Trainer:
    """A trainer of a preset, the largest recomputing.

    Args:
        name: The preset.
        shard: What it is trained on.
        folder: For the run.
        device: Where it trains.
        batch: Rows and length; None takes :data:`BATCHES`.
        precision: None takes float32 on a CPU and bfloat16 on a GPU.
    """
    rows, length = batch or BATCHES[device.type].get(name, SMALL[device.type])
    config = TrainConfig(
        network=load_checkpoint(name).network.config if name == SHIPPED else preset(name),
        mixture=Mixture({TASK: 1.0}),
        optimiser=published() if name in PAPER_SIZES else OptimiserConfig(),
        steps=1_000_000,
        rows=rows,
        length=length,
        recompute=name == BILLION or (name == "364m" and device.type == "cpu"),
        precision=precision or ("float32" if device.type == "cpu" else "bfloat16"),
    )
    return Trainer(config, {TASK: shard}, folder, device=str(device))


def bare_loop(trainer: Trainer) -> Callable[[], object]:
    """A call that makes one step on a batch that is already on the device, and nothing else."""
    config, network, optimiser = trainer.config, trainer.network, trainer.optimiser
    batch = trainer.packer.batch(0).to(trainer.device)
    kind, half = trainer.device.type, config.precision == "bfloat16"

    def step() -> None:
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            report = action_loss(
                network, network(batch), batch.targets, sigma=config.sigma, balance=config.balance
            )
        (report.total / report.scale).backward()
        optimiser.clip()
        optimiser.step(1000)
        finish(trainer.device)

    return step


@contextmanager
def running(trainer: Trainer) -> Iterator[Callable[[], object]]:
    """A call that has a run make its next step: batch, update, metrics, checkpoints and all."""
    trainer.resume()
    steps = trainer.steps()

    def step() -> None:
        with redirect_stdout(io.StringIO()):
            next(steps)
        finish(trainer.device)

    try:
        yield step
    finally:
        with redirect_stdout(io.StringIO()):
            steps.close()


def packing(trainer: Trainer) -> Callable[[], object]:
    """A call that packs the next :data:`PACKED` batches."""
    numbers = itertools.count()

    def pack() -> None:
        for _ in range(PACKED):
            trainer.packer.batch(next(numbers))

    return pack


def trainer_and_loader(
    name: str, folder: Path, *, device: torch.device, seconds: float, rounds: int = 5
) -> Iterator[Comparison]:
    """Tokens a second of the trainer over those of the bare loop, and of batches over the trainer.

    Args:
        name: A preset.
        folder: For shards and runs.
        device: Where it trains.
        seconds, rounds: As in :func:`benchmarks.speed.comparison.compare`.
    """
    shard = write_episodes(folder)
    bare = bare_loop(make_trainer(name, shard, folder / "bare", device=device))
    trainer = make_trainer(name, shard, folder / "run", device=device)
    tokens = trainer.config.rows * trainer.config.length
    measured = functools.partial(compare, seconds=seconds, rounds=rounds)
    work = f"{name}: train on {trainer.config.rows} x {trainer.config.length} tokens"
    with running(trainer) as train:
        ways = ("bare loop", bare), ("trainer", train)
        yield measured(work, *ways, items=tokens, limit="at least 0.95")
        ways = ("trainer", train), ("its batches alone", packing(trainer))
        yield measured(work, *ways, items=PACKED * tokens, slow_items=tokens, limit="at least 5")


def share_of_peak(
    name: str,
    folder: Path,
    *,
    device: torch.device,
    seconds: float,
    batch: tuple[int, int] | None = None,
) -> Comparison:
    """Operations a second of a training step over those of a large matrix product.

    The product is in float32 on a CPU and in bfloat16 on a GPU, as the step is. Arguments as in
    :func:`trainer_and_loader` and :func:`make_trainer`.
    """
    shard = write_episodes(folder)
    trainer = make_trainer(name, shard, folder / "bare", device=device, batch=batch)
    slow = name in PAPER_SIZES and device.type == "cpu"
    limit = "at least 0.40" if name == "364m" and device.type == "cuda" else ""
    way, rounds = ("a step", bare_loop(trainer)), 2 if slow else 5
    seconds = 0.0 if slow else seconds
    return _against_product(name, trainer, way, seconds=seconds, rounds=rounds, limit=limit)


def shipped_shape(folder: Path, *, device: torch.device, seconds: float) -> Iterator[Comparison]:
    """Operations a second of the trainer, with all that it does, over those of a large product.

    Arguments as in :func:`trainer_and_loader`.
    """
    shard, batches = write_episodes(folder), SHIPPED_BATCHES[device.type]
    for rows, length in batches:
        batch = rows, length
        trainer = make_trainer(SHIPPED, shard, folder / str(rows), device=device, batch=batch)
        limit = "at least 0.40" if batch == batches[-1] else ""
        with running(trainer) as train:
            way = "the trainer", train
            yield _against_product(SHIPPED, trainer, way, seconds=seconds, rounds=3, limit=limit)


def _against_product(
    name: str, trainer: Trainer, way: Way, *, seconds: float, rounds: int, limit: str
) -> Comparison:
    """Operations a second of a way to make a step over those of a large product."""
    config, device = trainer.config, trainer.device
    cost = trainer.family.flops(config) * config.rows * config.length
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    size = SIZES[device.type]
    return compare(
        f"{name}: operations for {config.rows} x {config.length} tokens",
        (f"a product of {size} x {size}", product(device, dtype, size)),
        way,
        items=int(cost),
        slow_items=2 * size**3,
        seconds=seconds,
        rounds=rounds,
        limit=limit,
    )


def sizes(device: torch.device, *, every: bool) -> list[str]:
    """Presets whose share of the peak is measured."""
    return [name for name in PRESETS if every or not left_out(name, device)]


def left_out(name: str, device: torch.device) -> str:
    """Why a preset is not measured unless asked for; empty where it is."""
    if device.type != "cpu" or name != BILLION:
        return ""
    return f"{name} is left out on a CPU: 24 GB of memory and minutes a step; --all measures it"
