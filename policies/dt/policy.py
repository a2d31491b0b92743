"""DtPolicy: a Decision Transformer behind Stable-Baselines3's ``predict``.

* :class:`DtPolicy` -- load, predict, save.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, TokenizedBatch, compile_plan
from gato_gym.tasks import get_task, task_id_of
from policies.base import spaces_of
from policies.dt.network import DtConfig, DtNetwork, state_inputs
from policies.model.config import NetworkConfig, fitted
from policies.model.inputs.sequence import TimestepArrays, cut_text
from policies.one_task.policy import OneTaskPolicy, OneTaskState, bins_of, choices_of
from policies.returns import ReturnScale


@dataclass
class DtState(OneTaskState):
    """What a batch of running episodes remembers.

    Attributes:
        inputs: float ``[B, K, 3, D]``, the embedded tokens of the last timesteps.
        returns: float64 ``[B]``, scaled returns that are still to collect.
    """

    inputs: Tensor
    returns: NDArray[np.float64]


class DtPolicy(OneTaskPolicy):
    """A Decision Transformer, acting in the spaces of its task.

    Discrete actions are drawn, unless ``deterministic``; numbers are what the network predicts.
    The return to go falls by the rewards that :meth:`observe_reward` is told, as every rollout of
    this package does. A step costs a forward of at most K timesteps for each row.

    Args:
        network, plan, task, returns, seed, card: As :class:`OneTaskPolicy` has them.
        target_return: The return that it plays for: a number, a share of the expert's such as
            "90%", or None for the best that was seen in training.
    """

    family, state_type = "dt", DtState
    network: DtNetwork

    def __init__(
        self,
        network: DtNetwork,
        plan: Plan,
        *,
        task: str = "custom",
        returns: ReturnScale | None = None,
        seed: int = 0,
        card: str = "",
        target_return: float | str | None = None,
    ) -> None:
        super().__init__(network, plan, task=task, returns=returns, seed=seed, card=card)
        self.target_return = self.returns.read(target_return)

    @staticmethod
    def build(sizes: dict[str, Any]) -> DtNetwork:
        """As :meth:`OneTaskPolicy.build`."""
        return DtNetwork(DtConfig.from_json(sizes))

    @classmethod
    def create(
        cls,
        env: Any,
        *,
        config: NetworkConfig | None = None,
        context: int = 20,
        options: PlanOptions | None = None,
        seed: int = 0,
    ) -> Self:
        """A policy with fresh weights for any environment; arguments as of `GatoPolicy.create`.

        Args:
            env: An environment, a vector environment, or SB3's VecEnv.
            config: The network's sizes.
            context: Timesteps that are seen.
            options: How its spaces become numbers; None takes those of the environment's task.
            seed: Seed of the weights and of the sampled actions.
        """
        task = task_id_of(env)
        if options is None and task is not None:
            options = get_task(task).options
        torch.manual_seed(seed)
        plan = compile_plan(*spaces_of(env), options)
        sizes = fitted(config or NetworkConfig(), [plan])
        return cls(DtNetwork(DtConfig(sizes, choices_of(plan), context)), plan, seed=seed)

    def with_return(self, share: float | None = None, *, total: float | None = None) -> DtPolicy:
        """A view of the same weights that plays for another return.

        Args:
            share: Share of the expert's return, such as 0.9.
            total: The return itself. With neither, the best that was seen in training.
        """
        return DtPolicy(
            self.network,
            self.plan,
            task=self.task,
            returns=self.returns,
            seed=self.seed,
            card=self.card,
            target_return=self.returns.target(share, total),
        )

    def new_state(self, rows: int) -> DtState:
        """As :meth:`OneTaskPolicy.new_state`."""
        config = self.network.config
        inputs = torch.zeros(rows, config.context, 3, config.network.width, device=self.device)
        return DtState(*self._fields(rows), inputs, np.zeros(rows))

    def _choose(
        self,
        state: DtState,
        encoded: TokenizedBatch,
        generators: Sequence[np.random.Generator | None],
    ) -> NDArray[np.int64]:
        """Row by row, as a product of several rows may round them in another way."""
        each = [self._choose_row(state, r, encoded, drawn) for r, drawn in enumerate(generators)]
        return np.stack(each)

    def _choose_row(
        self,
        state: DtState,
        row: int,
        encoded: TokenizedBatch,
        generator: np.random.Generator | None,
    ) -> NDArray[np.int64]:
        network, context = self.network, self.network.config.context
        inputs, played = state.inputs[row], int(state.lengths[row])
        now = torch.tensor(played, device=self.device)
        if played:
            state.returns[row] -= state.rewards[row] / self.returns.scale
            before = network.encode_actions(torch.from_numpy(state.actions[row]).to(self.device))
            inputs[min(played, context) - 1, 2] = network.at(network.embed_action(before), now - 1)
        else:
            state.returns[row] = self.target_return / self.returns.scale
        if played >= context:
            inputs[:-1] = inputs[1:].clone()
        last = min(played, context - 1)
        observed = network.embed_states(self._observed(encoded, row))[0]
        to_go = torch.tensor([state.returns[row]], dtype=torch.float32, device=self.device)
        inputs[last, 0] = network.at(network.embed_return(to_go), now)
        inputs[last, 1] = network.at(observed, now)
        tokens = inputs[: last + 1].flatten(0, 1)[:-1]  # but for the action, which is to come
        scores = network.predict(network.hidden(tokens[None])[0, -1]).cpu().numpy()
        return chosen_of(self.plan, network.config.actions, scores, generator)

    def _observed(self, encoded: TokenizedBatch, row: int) -> Any:
        """The observation of a row as the network takes it."""
        part = slice(row, row + 1)
        arrays = TimestepArrays(
            ids=encoded.ids[part],
            vectors=encoded.vectors[part],
            grids=encoded.grids[part],
            images=encoded.images[part],
            actions=np.zeros((1, 0), np.int64),
        )
        texts = [cut_text(np.asarray(encoded.text[row], np.int32))] if self.plan.has_text else []
        return state_inputs(self.plan, arrays, texts).to(self.device)


def chosen_of(
    plan: Plan,
    choices: tuple[int, ...],
    scores: NDArray[np.float32],
    generator: np.random.Generator | None,
) -> NDArray[np.int64]:
    """An action, int64 ``[A]`` counted from 0, of numbers and logits ``[E]``.

    Choices are drawn, or without a generator the likeliest.
    """
    values, first = np.zeros(len(choices)), 0
    for place, count in enumerate(choices):
        part = scores[first : first + max(1, count)].astype(np.float64)
        first += len(part)
        if not count:
            values[place] = part[0]
        elif generator is None:
            values[place] = part.argmax()
        else:
            shares = np.exp(part - part.max()).cumsum()
            values[place] = np.searchsorted(shares, generator.random() * shares[-1], side="right")
    return bins_of(plan, values)
