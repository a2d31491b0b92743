"""The Decision Transformer: windows of returns, states and actions.

* :class:`DtFamily` -- as :class:`~policies.training.families.family.Family`.
* :func:`dt_batch` -- windows of a shard as a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gato_gym.files.bounded_io import as_type
from gato_gym.spaces import Plan
from policies.dt.network import DtBatch, DtConfig, DtNetwork, state_inputs
from policies.model.config import NetworkConfig, fitted
from policies.one_task.policy import choices_of
from policies.training.config import TrainConfig
from policies.training.data.shards import TaskShard
from policies.training.data.windows import WindowSampler
from policies.training.families.family import Shards
from policies.training.families.one_task import OneTaskFamily
from policies.training.loss import LossReport


class DtFamily(OneTaskFamily[DtConfig, DtNetwork, DtBatch]):
    """The networks of :class:`policies.dt.policy.DtPolicy`."""

    name, title, policy = "dt", "Decision Transformer", "DtPolicy"
    row_length = 60

    def _sizes_for(
        self, plan: Plan, network: NetworkConfig, changes: dict[str, Any], length: int
    ) -> DtConfig:
        asked = as_type(dict[str, int], changes, "network")
        values = {"context": max(1, length // 3), **asked}
        if unknown := sorted(values.keys() - {"context", "longest"}):
            raise ValueError(f"network has the unknown fields {unknown}")
        return DtConfig(fitted(network, [plan]), choices_of(plan), **values)

    def _blocks(self, sizes: DtConfig) -> NetworkConfig:
        return sizes.network

    def read_sizes(self, values: Mapping[str, Any]) -> DtConfig:
        """As :meth:`Family.read_sizes`."""
        return DtConfig.from_json(values)

    def build(self, sizes: DtConfig) -> DtNetwork:
        """As :meth:`Family.build`."""
        return DtNetwork(sizes)

    def packer(
        self, config: TrainConfig, shards: Shards[TaskShard], texts: Mapping[str, Any] | None
    ) -> WindowSampler[DtBatch]:
        """As :meth:`Family.packer`."""
        return WindowSampler(
            shards,
            config.mixture,
            rows=config.rows,
            length=config.length,
            seed=config.seed,
            context=_sizes(config).context,
            tokens=3,
            collate=dt_batch,
        )

    def loss(
        self, network: DtNetwork, batch: DtBatch, config: TrainConfig, *, tasks: int
    ) -> LossReport:
        """Each timestep's action: squared error of numbers, cross-entropy of choices."""
        errors, off = network.errors(network(batch), batch.actions)
        discrete = all(_sizes(config).actions)
        score = 1 - off if discrete else off
        return self._report(config, batch, errors, score, first=0 if discrete else 3)

    def describe(self, shard: TaskShard) -> str:
        """What it chooses, and the returns that it has seen."""
        returns = shard.returns
        return (
            f"{shard.plan.num_actions} numbers or choices an action, best return "
            f"{returns.best:.2f}, returns to go divided by {returns.scale:.4g}"
        )


def dt_batch(shard: TaskShard, windows: Sequence[range]) -> DtBatch:
    """Windows of a shard as a batch; padding repeats a window's last timestep."""
    longest = max(map(len, windows))
    offsets = np.arange(longest)
    lengths = np.array([len(window) for window in windows])
    begins = np.array([window.start for window in windows])
    steps = begins[:, None] + np.minimum(offsets, lengths[:, None] - 1)
    mask = offsets < lengths[:, None]
    flat = steps.reshape(-1)
    starts = shard.starts[np.searchsorted(shard.ends, begins, side="right")]
    index = np.asarray(shard.arrays["text_index"])[flat].tolist() if shard.plan.has_text else []
    to_go = shard.returns_to_go[steps] / shard.returns.scale
    actions = shard.arrays["actions"][steps] - np.asarray(shard.plan.action_ranges)[:, 0]
    return DtBatch(
        state_inputs(shard.plan, shard.timesteps(flat), [shard.text(number) for number in index]),
        torch.from_numpy(to_go.astype(np.float32)),
        torch.from_numpy(actions.astype(np.int64)),
        torch.from_numpy(steps - starts[:, None]),
        torch.from_numpy(mask),
        {shard.task: 3 * int(mask.sum())},
    )


def _sizes(config: TrainConfig) -> DtConfig:
    assert isinstance(config.network, DtConfig)
    return config.network
