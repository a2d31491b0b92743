"""The Trajectory Transformer: every number of a transition is a token, and all are predicted.

* :class:`TtFamily` -- as :class:`~policies.training.families.family.Family`.
* :func:`transitions_of` -- the numbers of a shard's transitions; :func:`bins_for` -- their bins.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.spaces import Plan
from policies.model.config import NetworkConfig
from policies.one_task.policy import choices_of, values_of
from policies.returns import returns_to_go
from policies.training.config import TrainConfig
from policies.training.data.shards import TaskShard
from policies.training.data.windows import WindowSampler
from policies.training.families.family import Shards
from policies.training.families.one_task import OneTaskFamily
from policies.training.loss import LossReport
from policies.tt.discretizer import Discretizer
from policies.tt.network import TtBatch, TtConfig, TtNetwork
from policies.tt.policy import check_plan, describe_cost, fitted, search_in


class TtFamily(OneTaskFamily[TtConfig, TtNetwork, TtBatch]):
    """The networks of :class:`policies.tt.policy.TtPolicy`."""

    name, title, policy = "tt", "Trajectory Transformer", "TtPolicy"
    row_length = 256

    def _sizes_for(
        self, plan: Plan, network: NetworkConfig, changes: dict[str, Any], length: int
    ) -> TtConfig:
        check_plan(plan)
        base = TtConfig(network, plan.vector_length, plan.num_actions)
        values = {**base.to_json(), "context": max(2, length // base.dims), **changes}
        return fitted(TtConfig.from_json({**values, "network": network.to_json()}))

    def _blocks(self, sizes: TtConfig) -> NetworkConfig:
        return sizes.network

    def read_sizes(self, values: Mapping[str, Any]) -> TtConfig:
        """As :meth:`Family.read_sizes`."""
        return TtConfig.from_json(values)

    def build(self, sizes: TtConfig) -> TtNetwork:
        """As :meth:`Family.build`."""
        return TtNetwork(sizes)

    def packer(
        self, config: TrainConfig, shards: Shards[TaskShard], texts: Mapping[str, Any] | None
    ) -> WindowSampler[TtBatch]:
        """As :meth:`Family.packer`."""
        sizes = _sizes(config)
        (shard,) = shards.values()
        numbers = transitions_of(shard, sizes.discount)
        tokens = bins_for(shard, numbers, sizes).encode(numbers)
        return WindowSampler(
            shards,
            config.mixture,
            rows=config.rows,
            length=config.length,
            seed=config.seed,
            context=sizes.context,
            tokens=sizes.dims,
            collate=partial(tt_batch, tokens),
        )

    def loss(
        self, network: TtNetwork, batch: TtBatch, config: TrainConfig, *, tasks: int
    ) -> LossReport:
        """The cross-entropy of every token but a window's first."""
        errors, misses = network.errors(batch)
        return self._report(config, batch, errors, 1 - misses, first=0)

    def _live(self, batch: TtBatch) -> Tensor:
        return batch.mask[:, 1:]

    def _ready(self, network: TtNetwork, shard: TaskShard) -> TtNetwork:
        ready = copy.deepcopy(network)
        sizes = network.config
        bins = bins_for(shard, transitions_of(shard, sizes.discount), sizes)
        ready.edges[:] = torch.from_numpy(bins.edges).to(ready.edges.device)
        return ready

    def describe(self, shard: TaskShard) -> str:
        """Tokens of a transition, and what planning costs."""
        sizes = TtConfig(NetworkConfig(), shard.plan.vector_length, shard.plan.num_actions)
        search = search_in(max(2, self.row_length // sizes.dims))
        return f"{sizes.dims} tokens a transition; {describe_cost(search, sizes)}"


def transitions_of(shard: TaskShard, discount: float) -> NDArray[np.float32]:
    """Observation, action, reward and discounted return of each timestep: float32 ``[N, dims]``."""
    count = shard.num_steps
    seen = shard.arrays["vectors"].reshape(count, -1)[:, : shard.plan.vector_length]
    actions = shard.arrays["actions"] - np.asarray(shard.plan.action_ranges)[:, 0]
    rewards = shard.arrays["rewards"]
    to_go = returns_to_go(rewards, shard.ends, discount)
    parts = [seen, values_of(shard.plan, actions), rewards[:, None], to_go[:, None]]
    return np.concatenate(parts, 1, dtype=np.float32, casting="same_kind")


def bins_for(shard: TaskShard, numbers: NDArray[np.float32], sizes: TtConfig) -> Discretizer:
    """The bins of a shard's transitions."""
    bins = Discretizer.of(numbers, sizes.bins)
    for place, count in enumerate(choices_of(shard.plan)):
        if count:
            bins = bins.with_choices(sizes.observations + place, count)
    return bins


def tt_batch(tokens: NDArray[np.int64], shard: TaskShard, windows: Sequence[range]) -> TtBatch:
    """Windows of a shard as a batch, of the tokens ``[N, dims]`` of its transitions."""
    dims, longest = tokens.shape[1], max(map(len, windows))
    padded = np.zeros((len(windows), longest, dims), np.int64)
    mask = np.zeros((len(windows), longest, dims), np.bool_)
    for row, window in enumerate(windows):
        padded[row, : len(window)] = tokens[window.start : window.stop]
        mask[row, : len(window)] = True
    return TtBatch(
        torch.from_numpy(padded.reshape(len(windows), -1)),
        torch.from_numpy(mask.reshape(len(windows), -1)),
        {shard.task: int(mask.sum())},
    )


def _sizes(config: TrainConfig) -> TtConfig:
    assert isinstance(config.network, TtConfig)
    return config.network
