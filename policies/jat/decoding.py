"""From an observation to its hidden vector, with a fixed amount of memory for each row.

* :class:`JatState` -- what a batch of running episodes remembers.
* :class:`Decoder` -- adds the last action and the observation of each row to it.

Learned positions end, so a full window has to give way. ``exact``: the oldest timesteps leave
together, and what is left is encoded again at positions from 0 on, so that every hidden vector is
that of the whole sequence in the window. ``published``: what the published loop computes, in which
keys and values stay as they were encoded and all new tokens get the last positions.

Shapes: B rows, T tokens, D width, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.jat.cache import TokenCache
from policies.jat.modalities import Modalities
from policies.jat.network import JatNetwork
from policies.model.row_blocks import BLOCK, BlockSizes, rows_in_blocks

Positions = Literal["exact", "published"]
WINDOWS = {"image": 32, "continuous": 256, "discrete": 256}
"""Tokens that the published evaluation keeps."""


@dataclass
class JatState:
    """What a batch of running episodes remembers. ``predict`` writes into it.

    Attributes:
        cache: Keys and values.
        inputs: float ``[B, T, D]``, embeddings of the tokens in the window, which are encoded
            again; with published positions those of the last observation alone, T is 1.
        lengths: int64 ``[B]``, tokens so far: of the window, or with published positions of the
            episode.
        actions: float32 ``[B, A]`` or int64 ``[B]``, the last action as the network gave it.
        rewards: float32 ``[B]``, the reward since then.
        generators: object ``[B]``, each row's :class:`policies.chance.RowGenerator`.
    """

    cache: TokenCache
    inputs: Tensor
    lengths: NDArray[np.int64]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    generators: NDArray[np.object_]

    @property
    def rows(self) -> int:
        """B."""
        return len(self.lengths)

    def begin(self, starts: NDArray[np.bool_]) -> None:
        """Forget everything of the rows that begin an episode: bool ``[B]``."""
        self.lengths[starts], self.rewards[starts] = 0, 0
        self.cache.clear(torch.from_numpy(starts).to(self.cache.orders.device))


class Decoder:
    """Adds the last action and the observation of each row to what it remembers.

    Args:
        network: The weights.
        modalities: What is observed and chosen.
        window: Most tokens of the context, 2 for the observation alone; None is the network's
            ``context_tokens``, or the published evaluation's, 32 where images are observed and 256
            elsewhere.
        positions: "exact" or "published".
        stride: Timesteps that leave a full window together; None is a quarter of the window's
            tokens, half of its timesteps. 1 keeps as many as there is room for, and encodes them
            all at every step.

    Raises:
        ValueError: The window or the stride is out of range.
    """

    def __init__(
        self,
        network: JatNetwork,
        modalities: Modalities,
        *,
        window: int | None = None,
        positions: Positions = "exact",
        stride: int | None = None,
    ) -> None:
        if positions not in get_args(Positions):
            raise ValueError(f"positions is {positions!r}: expected one of {get_args(Positions)}")
        most = network.config.max_position_embeddings - (4 if positions == "published" else 0)
        default = network.config.context_tokens or WINDOWS[modalities.observation]
        self.window = min(default, most // 2 * 2) if window is None else window
        least = 4 if positions == "published" else 2
        if self.window % 2 or not least <= self.window <= most:
            raise ValueError(
                f"window is {self.window} tokens: expected an even number of {least} to {most}"
            )
        self.stride = max(1, self.window // 4) if stride is None else stride
        if not 1 <= self.stride <= max(1, self.window // 2 - 1):
            raise ValueError(
                f"stride is {stride} timesteps: expected 1 to {max(1, self.window // 2 - 1)}, "
                f"fewer than a window of {self.window} tokens has"
            )
        self.network, self.modalities, self.positions = network, modalities, positions
        self._sizes = BlockSizes()

    @property
    def like(self) -> Tensor:
        """A weight, which has the device and the dtype of all."""
        return self.network.continuous_encoder.weight

    def new_state(self, rows: int) -> JatState:
        """The state of rows that have seen nothing."""
        config, published = self.network.config, self.positions == "published"
        slots = self.window + 3 if published else self.window
        discrete = self.modalities.action == "discrete"
        size = () if discrete else (self.modalities.action_size,)
        return JatState(
            TokenCache.empty(config, rows=rows, slots=slots, like=self.like),
            self.like.new_zeros(rows, 1 if published else slots, config.hidden_size),
            np.zeros(rows, np.int64),
            np.zeros((rows, *size), np.int64 if discrete else np.float32),
            np.zeros(rows, np.float32),
            np.empty(rows, object),
        )

    def fits(self, state: JatState) -> bool:
        """Whether a state is of this network's sizes, window, positions and actions."""
        expected = self.new_state(0)
        return all(
            (mine.dtype, mine.shape[axis + 1 :]) == (given.dtype, given.shape[axis + 1 :])
            and mine.shape[:axis] == given.shape[:axis]
            for mine, given, axis in (
                (expected.cache.keys, state.cache.keys, 1),
                (expected.inputs, state.inputs, 0),
                (expected.actions, state.actions, 0),
            )
        )

    @torch.inference_mode()
    def step(self, state: JatState, observation: Tensor) -> Tensor:
        """The hidden vector of each row's observation, which the state now has.

        Args:
            state: Whose rows that begin have been told so.
            observation: From :meth:`Modalities.read`.

        Returns:
            float ``[B, D]``.
        """
        rewards = torch.from_numpy(state.rewards).to(self.like)
        observation = observation.to(self.like.device)
        observed = self.by_blocks(
            lambda rows: self._embed(observation[rows], rewards[rows]), state.rows
        )
        pending = torch.from_numpy(state.actions).to(self.like.device)
        acted = self.by_blocks(lambda rows: self._embed_actions(pending[rows]), state.rows)
        state.rewards[:] = 0
        if self.positions == "published":
            return self._step_published(state, observed, acted)
        return self._step_exact(state, observed, acted)

    def _step_exact(self, state: JatState, observed_BD: Tensor, acted_BD: Tensor) -> Tensor:
        for row in np.flatnonzero(state.lengths + 2 > self.window).tolist():
            self._slide(state, row)
        lengths = torch.from_numpy(state.lengths).to(observed_BD.device)
        began = lengths == 0
        orders = torch.stack([lengths, lengths + 1], 1)
        orders[began] = torch.tensor([-1, 0], device=orders.device)
        positions, x_BTD = orders.clamp(min=0), torch.stack([acted_BD, observed_BD], 1)
        rows = torch.arange(state.rows, device=orders.device)[:, None]
        state.inputs[rows, positions] = x_BTD  # of rows that begin, the observation comes last
        state.inputs[began, 0] = observed_BD[began]
        first = torch.zeros_like(lengths)
        hidden = self.network.transformer.step(x_BTD, orders, positions, state.cache, first)
        state.lengths += np.where(state.lengths == 0, 1, 2)
        return hidden[:, -1]

    def _slide(self, state: JatState, row: int) -> None:
        """The oldest timesteps of a row leave, and the others are encoded again."""
        kept = state.inputs[row, 2 * self.stride : int(state.lengths[row])].clone()
        state.inputs[row, : len(kept)] = kept
        state.lengths[row] = len(kept)
        cache, orders = state.cache.row(row), torch.arange(len(kept), device=kept.device)[None]
        cache.orders[:] = -1
        if len(kept):
            first = torch.zeros_like(orders[0, :1])
            self.network.transformer.step(kept[None], orders, orders, cache, first, wanted=0)

    def _step_published(self, state: JatState, observed_BD: Tensor, acted_BD: Tensor) -> Tensor:
        """The last observation once more, the action, the new observation."""
        before = torch.from_numpy(state.lengths).to(observed_BD.device) - 1
        offsets = torch.arange(3, device=before.device)
        orders = before[:, None] + offsets
        positions = before.clamp(max=self.window)[:, None] + offsets
        began = before < 0
        orders[began] = torch.tensor([-1, -1, 0], device=orders.device)
        positions[began] = 0
        x_BTD = torch.stack([state.inputs[:, 0], acted_BD, observed_BD], 1)
        hidden = self.network.transformer.step(
            x_BTD,
            orders,
            positions,
            state.cache,
            (before - self.window).clamp(min=0),
        )
        state.inputs[:, 0] = observed_BD
        state.lengths += np.where(state.lengths == 0, 1, 2)
        return hidden[:, -1]

    @torch.inference_mode()
    def scores(self, hidden_BD: Tensor) -> NDArray[np.float32]:
        """Numbers of continuous actions ``[B, A]``, or logits of discrete ones ``[B, choices]``."""
        scores = self.by_blocks(lambda rows: self._scores(hidden_BD[rows]), len(hidden_BD))
        return scores.float().cpu().numpy()

    def _scores(self, hidden: Tensor) -> Tensor:
        if self.modalities.action == "discrete":
            return self.network.logits(hidden, self.modalities.choices)
        return self.network.predict_numbers(hidden)[:, : self.modalities.action_size]

    def _embed(self, observation: Tensor, rewards: Tensor) -> Tensor:
        network = self.network
        if self.modalities.observation == "discrete":
            return network.embed_symbols(observation, rewards)
        observation = observation.to(rewards.dtype)
        if self.modalities.observation == "image":
            return network.embed_images(observation)
        return network.embed_numbers(torch.cat([observation, rewards[:, None]], 1))

    def _embed_actions(self, actions: Tensor) -> Tensor:
        if self.modalities.action == "discrete":
            return self.network.embed_ids(actions)
        return self.network.embed_numbers(actions.to(self.like))

    def by_blocks(self, function: Callable[[Tensor], Tensor], rows: int) -> Tensor:
        """A function of rows, of which each gets the same numbers in any batch.

        Args:
            function: Of rows' numbers, int64 ``[n]``; gives ``[n, ...]``.
            rows: How many there are.
        """
        device = self.like.device
        if device.type != "cpu" or self.like.dtype != torch.float32:
            return function(torch.arange(rows, device=device))
        sizes = self._sizes.proven(self._random)
        parts = []
        for first in range(0, rows, BLOCK):
            count = min(rows - first, BLOCK)
            numbers = torch.arange(rows_in_blocks(count, sizes)).clamp(max=count - 1)
            parts.append(function(first + numbers)[:count])
        return torch.cat(parts)

    def _random(self, rows: int) -> Tensor:
        """What random rows come to: ``[rows, n]``."""
        generator, config = torch.Generator().manual_seed(0), self.network.config
        numbers = torch.randn(BLOCK, config.hidden_size, generator=generator)[:rows]
        kind = self.modalities.observation
        if kind == "image":
            observation = torch.randn(BLOCK, 4, 84, 84, generator=generator)[:rows]
        elif kind == "discrete":
            shape = (BLOCK, config.max_discrete_value)
            observation = torch.randint(config.vocab_size, shape, generator=generator)[:rows]
        else:
            observation = torch.randn(BLOCK, config.max_continuous_size - 1, generator=generator)
            observation = observation[:rows]
        parts = [self._embed(observation, numbers[:, 0]), self._scores(numbers)]
        if self.modalities.action == "continuous":
            parts.append(self._embed_actions(numbers[:, : config.max_continuous_size]))
        return torch.cat(parts, 1)
