"""TtPolicy: a Trajectory Transformer behind Stable-Baselines3's ``predict``.

* :class:`TtPolicy` -- load, predict, save.
* :func:`check_plan` -- refuses spaces that are not numbers alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, TokenizedBatch, compile_plan
from gato_gym.tasks import get_task, task_id_of
from policies.base import spaces_of
from policies.model.config import NetworkConfig
from policies.one_task.policy import (
    OneTaskPolicy,
    OneTaskState,
    bins_of,
    choices_of,
    values_of,
)
from policies.returns import ReturnScale
from policies.tt.discretizer import Discretizer
from policies.tt.network import TtConfig, TtNetwork
from policies.tt.search import Search, plan

TOGETHER = 8
"""Rows that are searched at once, at most: the caches of more do not fit into a processor's."""


@dataclass
class TtState(OneTaskState):
    """What a batch of running episodes remembers.

    Attributes:
        past: int64 ``[B, history, dims]``, the last transitions, the newest one last.
        observed: int64 ``[B, observations]``, the last observation.
    """

    past: NDArray[np.int64]
    observed: NDArray[np.int64]


class TtPolicy(OneTaskPolicy):
    """A Trajectory Transformer, acting in the spaces of its task.

    It plans by beam search at each step, for several rows at once; :meth:`describe` says what that
    costs. The draws of the search are the episode's random numbers, or the same at each step if
    ``deterministic``. It reads the rewards that :meth:`observe_reward` is told.

    Args:
        network, plan, task, returns, seed, card: As :class:`OneTaskPolicy` has them.
        search: How far and how broadly is searched; None fits the defaults into the network's
            context.

    Attributes:
        bins: Of its dimensions.

    Raises:
        ValueError: The spaces are not numbers alone, or the context is too short for the search.
    """

    family, state_type = "tt", TtState
    network: TtNetwork

    def __init__(
        self,
        network: TtNetwork,
        plan: Plan,
        *,
        task: str = "custom",
        returns: ReturnScale | None = None,
        seed: int = 0,
        card: str = "",
        search: Search | None = None,
    ) -> None:
        super().__init__(network, plan, task=task, returns=returns, seed=seed, card=card)
        check_plan(plan)
        context = network.config.context
        search = search or search_in(context)
        if search.horizon + search.history > context:
            raise ValueError(
                f"search has a horizon of {search.horizon} and a history of {search.history}: "
                f"expected at most {context} transitions together, as the network has seen"
            )
        self.search, self.bins = search, Discretizer(network.edges.cpu().numpy())

    @staticmethod
    def build(sizes: dict[str, Any]) -> TtNetwork:
        """As :meth:`OneTaskPolicy.build`."""
        return TtNetwork(TtConfig.from_json(sizes))

    @classmethod
    def create(
        cls,
        env: Any,
        *,
        config: NetworkConfig | None = None,
        context: int = 10,
        bins: int = 100,
        search: Search | None = None,
        seed: int = 0,
    ) -> Self:
        """A policy with fresh weights, whose bins are equal parts of [-2, 2].

        Args:
            env: An environment, a vector environment, or SB3's VecEnv.
            config: The network's sizes.
            context: Transitions that it sees.
            bins: Of each dimension.
            search: As in the class.
            seed: Seed of the weights and of the draws.
        """
        task = task_id_of(env)
        options = PlanOptions() if task is None else get_task(task).options
        plan = compile_plan(*spaces_of(env), options)
        check_plan(plan)
        torch.manual_seed(seed)
        sizes = TtConfig(
            config or NetworkConfig(), plan.vector_length, plan.num_actions, bins, context
        )
        network = TtNetwork(fitted(sizes))
        network.edges[:] = torch.linspace(-2, 2, bins + 1)
        for place, count in enumerate(choices_of(plan)):
            if count:
                dimension = sizes.observations + place
                edges = Discretizer(network.edges.numpy()).with_choices(dimension, count).edges
                network.edges[:] = torch.from_numpy(edges)
        return cls(network, plan, search=search, seed=seed)

    def describe(self) -> str:
        """What a step costs."""
        return describe_cost(self.search, self.network.config)

    def new_state(self, rows: int) -> TtState:
        """As :meth:`OneTaskPolicy.new_state`."""
        config = self.network.config
        past = np.zeros((rows, self.search.history, config.dims), np.int64)
        return TtState(*self._fields(rows), past, np.zeros((rows, config.observations), np.int64))

    def _choose(
        self,
        state: TtState,
        encoded: TokenizedBatch,
        generators: Sequence[np.random.Generator | None],
    ) -> NDArray[np.int64]:
        """Rows with as much of a past are searched together."""
        seen = np.minimum(state.lengths, state.past.shape[1])
        contexts = [self._context(state, row, encoded) for row in range(state.rows)]
        drawn = [np.random.default_rng(self.seed) if g is None else g for g in generators]
        actions = np.empty_like(state.actions)
        for length in np.unique(seen):
            alike = np.flatnonzero(seen == length)
            for rows in np.split(alike, range(TOGETHER, len(alike), TOGETHER)):
                tokens, _ = plan(
                    self.network,
                    self.bins,
                    np.stack([contexts[row] for row in rows]),
                    self.search,
                    [drawn[row] for row in rows],
                )
                values = self.bins.decode(tokens, self.network.config.observations)
                actions[rows] = bins_of(self.plan, values)
        return actions

    def _context(self, state: TtState, row: int, encoded: TokenizedBatch) -> NDArray[np.int64]:
        """The tokens of a row's past and of its observation, which the state takes up."""
        config, bins, past = self.network.config, self.bins, state.past[row]
        if state.lengths[row] and len(past):
            past[:-1] = past[1:].copy()
            acted = values_of(self.plan, state.actions[row])
            numbers = np.r_[acted, state.rewards[row]]
            past[-1, : config.observations] = state.observed[row]
            past[-1, config.observations : -1] = bins.encode(numbers, config.observations)
        numbers = encoded.vectors[row].reshape(-1)[: config.observations]
        state.observed[row] = bins.encode(numbers)
        seen = min(int(state.lengths[row]), len(past))
        return np.r_[past[len(past) - seen :].reshape(-1), state.observed[row]]


def fitted(config: TtConfig) -> TtConfig:
    """The sizes with a window that sees the whole context, and no room for a prompt."""
    window = config.dims * config.context
    network = dataclasses.replace(config.network, window=window, prompt_tokens=0)
    return dataclasses.replace(config, network=network)


def search_in(context: int) -> Search:
    """The usual search, or what of it fits into a context."""
    horizon = min(Search.horizon, max(1, context - 1))
    return Search(horizon=horizon, history=min(Search.history, context - horizon))


def describe_cost(search: Search, config: TtConfig) -> str:
    """What a step of a search costs, in words."""
    forwards, tokens = search.cost(config)
    return (
        f"beam search over {search.horizon} transitions, {search.beams} beams of {search.draws} "
        f"draws: {forwards} forward passes of {tokens:,} tokens a step"
    )


def check_plan(plan: Plan) -> None:
    """Refuse observations that are not numbers alone.

    Raises:
        ValueError: They have texts, images or symbols.
    """
    others = (plan.id_slots, plan.grid_slots, plan.image_slots)
    if plan.has_text or not plan.vector_length or any(len(slots) for slots in others):
        raise ValueError(
            f"observations are of {plan.observation_space} in the layout {plan.options.layout}: a "
            "Trajectory Transformer takes a Box of numbers, in the layout lean; train dt or gato"
        )
