"""Acting step by step: a batch of episodes through the network and its cache.

* :class:`Streamer` -- observations in, action ids out, for one plan and prompt.
* :class:`GatoState` -- what a batch of running episodes needs.

A timestep costs one pass of the backbone for each action token: the observation's tokens give the
first, each chosen token the next. Rows are computed in blocks of a fixed number, so that a row's
numbers do not depend on how many rows there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.spaces import Plan, TokenizedBatch
from policies.backbone import RingCache
from policies.embedding import ACTION_PLACE, TEXT_PLACES, TokenInputs
from policies.network import GatoNetwork
from policies.sampling import Sampler
from policies.timesteps import Layout, TimestepArrays, TokenCollector, cut_text, lay_out

BLOCK = 32
"""Rows of one forward; a batch is padded to a multiple of it."""


@dataclass
class GatoState:
    """Everything a batch of running episodes needs. ``predict`` writes into it.

    Attributes:
        cache: Keys and values.
        next_positions: int64 ``[R]``, position of the next token of each row.
        pending: int64 ``[R]``, last action token, when it is to enter with the next observation;
            else -1.
        conditions: float ``[R, D]``, the text that each row acts under.
        texts: The text each row saw last, as bytes of its ids.
        ages: Timesteps since it was emitted.
        generators: Random numbers of each row's episode.
        rows: Rows of the caller; R is the next multiple of the block.
    """

    cache: RingCache
    next_positions: NDArray[np.int64]
    pending: NDArray[np.int64]
    conditions: Tensor
    texts: list[bytes | None]
    ages: list[int]
    generators: list[np.random.Generator | None]
    rows: int


class Streamer:
    """Feeds a batch's observations and chooses its action ids.

    Args:
        network: The weights.
        plan: How the spaces become tokens.
        sampler: How action tokens are chosen.
        pinned: A cache row with the encoded prompt, or None.
    """

    def __init__(
        self, network: GatoNetwork, plan: Plan, sampler: Sampler, pinned: RingCache | None
    ) -> None:
        self.network, self.plan, self.sampler, self.pinned = network, plan, sampler, pinned

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def ring(self) -> int:
        """Live slots of a row: the window and the longest chunk."""
        plan = self.plan
        chunk = plan.num_tokens + plan.num_actions + 1 + TEXT_PLACES * plan.has_text
        return chunk + (0 if plan.options.memory == "none" else self.network.config.window)

    def new_state(self, rows: int) -> GatoState:
        """The state of ``rows`` episodes that have not begun."""
        size = -(-rows // BLOCK) * BLOCK
        config = self.network.config
        like = next(self.network.parameters())
        cache = RingCache.empty(config, rows=size, ring=self.ring, like=like)
        if self.pinned is not None:
            pinned = config.prompt_tokens
            cache.keys[..., :pinned, :] = self.pinned.keys[..., :pinned, :]
            cache.values[..., :pinned, :] = self.pinned.values[..., :pinned, :]
            cache.positions[:, :pinned] = self.pinned.positions[:, :pinned]
        return GatoState(
            cache=cache,
            next_positions=np.full(size, config.prompt_tokens, np.int64),
            pending=np.full(size, -1, np.int64),
            conditions=torch.zeros(size, config.width, device=like.device),
            texts=[None] * size,
            ages=[0] * size,
            generators=[None] * size,
            rows=rows,
        )

    def restart(self, state: GatoState, starts: NDArray[np.bool_]) -> None:
        """Forget the episodes of the rows that start one; the pinned prompt stays."""
        prompt = self.network.config.prompt_tokens
        for row in np.flatnonzero(starts).tolist():
            state.cache.positions[row, prompt:] = -1
            state.next_positions[row], state.pending[row] = prompt, -1
            state.texts[row], state.ages[row] = None, 0

    @torch.inference_mode()
    def act(
        self,
        state: GatoState,
        encoded: TokenizedBatch,
        uniforms: NDArray[np.float32],
        *,
        deterministic: bool,
    ) -> NDArray[np.int64]:
        """Action ids of every row.

        Args:
            state: Of the rows; written.
            encoded: Their observations, one a row of the caller.
            uniforms: float32 ``[R, A]`` in [0, 1), random numbers of each row and action token.
            deterministic: No sampling.

        Returns:
            int64 ``[R, A]``.
        """
        return np.concatenate(
            [
                self._act(state, encoded, slice(first, first + BLOCK), uniforms, deterministic)
                for first in range(0, len(state.pending), BLOCK)
            ]
        )

    def _emissions(
        self, state: GatoState, encoded: TokenizedBatch, block: slice
    ) -> dict[int, NDArray[np.int32]]:
        """The rows of a block that emit their text now, by row, and what they emit."""
        found: dict[int, NDArray[np.int32]] = {}
        options = self.plan.options
        always = options.text == "always" or options.memory == "none"
        for row in range(block.start, min(block.stop, state.rows) if self.plan.has_text else 0):
            text = cut_text(np.asarray(encoded.text[row], np.int32))
            key = text.tobytes()
            if always or state.texts[row] != key or state.ages[row] >= options.text_refresh:
                found[row] = text
                state.texts[row], state.ages[row] = key, 0
            state.ages[row] += 1
        return found

    def _act(
        self,
        state: GatoState,
        encoded: TokenizedBatch,
        block: slice,
        uniforms: NDArray[np.float32],
        deterministic: bool,
    ) -> NDArray[np.int64]:
        """Action ids of one block: int64 ``[block, A]``."""
        plan, network = self.plan, self.network
        hidden = self._observe(state, encoded, block)
        cache, positions = _block(state.cache, block), state.next_positions[block]
        chosen: list[Tensor] = []
        randoms = torch.from_numpy(uniforms[block]).to(self.device)
        for j, (start, stop) in enumerate(plan.action_ranges.tolist()):
            if j:
                tokens = _action_tokens(chosen[-1][:, None])
                at = torch.from_numpy(positions[:, None] + j - 1).to(self.device)
                hidden = network.step(tokens, state.conditions[block], at, cache)[:, 0]
            logits = network.symbol_logits(hidden, start, stop)
            choice = self.sampler.choose(
                logits,
                randoms[:, j],
                continuous=bool(plan.action_is_continuous[j]),
                deterministic=deterministic,
            )
            chosen.append(choice + start)
        ids = torch.stack(chosen, 1).cpu().numpy()
        memory = plan.options.memory
        if memory == "all":
            state.next_positions[block] += plan.num_actions - 1
            state.pending[block] = ids[:, -1]
        elif memory == "none":
            state.next_positions[block] = network.config.prompt_tokens
        return ids

    def _observe(self, state: GatoState, encoded: TokenizedBatch, block: slice) -> Tensor:
        """Feed a block's observations; the hidden vector that predicts its first action token.

        Rows that emit a text, or have no action pending where the others have, go one by one, since
        their lengths differ; the others go together.
        Afterwards ``next_positions`` is the position of the first action token.
        """
        texts = self._emissions(state, encoded, block)
        real = range(block.start, min(block.stop, state.rows))
        fresh = (
            [row for row in real if state.pending[row] < 0]
            if self.plan.options.memory == "all"
            else []
        )
        alone = sorted({*texts, *fresh})
        hidden = torch.zeros(BLOCK, self.network.config.width, device=self.device)
        if len(alone) < len(real):
            rows = range(block.start, block.stop)
            sources = [min(row, state.rows - 1) for row in rows]
            active = np.array([row not in alone for row in rows])
            hidden = self._feed(state, encoded, block, sources, None, active)
        for row in alone:
            text = texts.get(row)
            if text is not None and len(text):
                ids = torch.from_numpy(text[None].astype(np.int64)).to(self.device)
                state.conditions[row] = self.network.embedding.encode_texts(ids)[0]
            part = slice(row, row + 1)
            hidden[row - block.start] = self._feed(state, encoded, part, [row], text, None)[0]
        return hidden

    def _feed(
        self,
        state: GatoState,
        encoded: TokenizedBatch,
        part: slice,
        sources: list[int],
        text: NDArray[np.int32] | None,
        active: NDArray[np.bool_] | None,
    ) -> Tensor:
        """One forward of one timestep of rows whose tokens are equally many."""
        plan = self.plan
        n = len(sources)
        arrays = _timesteps(encoded, sources)
        layout = lay_out(plan, [text] * n, arrays.actions, first_position=0, fed=0)
        width = len(layout.ids) // n
        lead = int(plan.options.memory == "all" and (n > 1 or bool(state.pending[part][0] >= 0)))
        tokens = _rows_of_tokens(plan, layout, arrays, n, lead, state.pending[part])
        first = state.next_positions[part]
        at = first[:, None] + np.arange(width + lead)
        mask = None if active is None else torch.from_numpy(active).to(self.device)
        hidden = self.network.step(
            tokens.to(self.device),
            state.conditions[part],
            torch.from_numpy(at).to(self.device),
            _block(state.cache, part),
            mask,
        )
        moved = np.ones(n, np.bool_) if active is None else active
        state.next_positions[part] = np.where(moved, first + width + lead, first)
        return hidden[:, -1]


def _block(cache: RingCache, part: slice) -> RingCache:
    return RingCache(
        cache.keys[:, part], cache.values[:, part], cache.positions[part], cache.prompt
    )


def _timesteps(encoded: TokenizedBatch, rows: list[int]) -> TimestepArrays:
    return TimestepArrays(
        ids=encoded.ids[rows],
        vectors=encoded.vectors[rows],
        grids=encoded.grids[rows],
        images=encoded.images[rows],
        actions=np.zeros((len(rows), 0), np.int64),
    )


def _action_tokens(ids: Tensor) -> TokenInputs:
    return TokenInputs(
        ids=ids,
        places=torch.full_like(ids, ACTION_PLACE),
        conditions=torch.full_like(ids, -1),
    )


def _rows_of_tokens(
    plan: Plan,
    layout: Layout,
    arrays: TimestepArrays,
    n: int,
    lead: int,
    pending: NDArray[np.int64],
) -> TokenInputs:
    """n equally long timesteps as n rows, after ``lead`` pending action tokens each."""
    width = len(layout.ids) // n
    collector = TokenCollector(n, width + lead)
    if lead:
        collector.ids[:, 0], collector.places[:, 0] = pending, ACTION_PLACE
    collector.ids[:, lead:] = layout.ids.reshape(n, width)
    collector.places[:, lead:] = layout.places.reshape(n, width)
    bodies = layout.body_starts + lead * (1 + np.arange(n))
    collector.add_parts(plan, bodies, arrays)
    if plan.has_text:
        collector.conditions[:] = np.arange(n)[:, None]
    return collector.finish()
