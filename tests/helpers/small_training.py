"""A training of the small network on two tasks, for tests."""

from __future__ import annotations

import dataclasses

import numpy as np
from small import SMALL, random_shard, state_plan, talking_plan

from policies.training.config import TrainConfig
from policies.training.data.packing import Mixture
from policies.training.data.shards import TaskShard
from policies.training.optimizer import OptimiserConfig
from policies.training.trainer import Trainer


def shards() -> dict[str, TaskShard]:
    """Two tasks, the actions of which the observation decides."""
    by_task = {
        "talk": random_shard(talking_plan(), "talk"),
        "act": random_shard(state_plan(), "act"),
    }
    for shard in by_task.values():  # an action that the observation decides
        first = shard.arrays["vectors"][:, 0, 1] > 0
        low, high = shard.plan.action_ranges[0]
        shard.arrays["actions"][:, 0] = np.where(first, low, high - 1)
    return by_task


def config(**changes: object) -> TrainConfig:
    """Sixty updates of four rows."""
    base = TrainConfig(
        network=SMALL,
        mixture=Mixture({"talk": 0.5, "act": 0.5}, prompt_share={"talk": 0.25, "act": 0.25}),
        optimiser=OptimiserConfig(warmup=5, rate=5e-3),
        steps=60,
        rows=4,
        length=96,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def losses(trainer: Trainer, count: int) -> list[float]:
    """Of the next updates, for each token."""
    reports = [trainer.update()[0] for _ in range(count)]
    return [float(report.total / report.scale) for report in reports]
