"""Rows that are decoded as one batch, in one timestep.

* :class:`RowGroup` -- embeds their observations, and chooses their action tokens.
* :class:`NewTokens` -- what it gives to the backbone.
* :func:`alike_places` -- action positions that are chosen from the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.spaces import TokenizedBatch
from policies.gato.decoder import Decoder
from policies.gato.sampling import mixed_numbers, nearest_bins
from policies.gato.state import GatoState
from policies.model.inputs.sequence import TimestepArrays, TokenCollector, cut_text, with_parts
from policies.model.return_embedding import TimestepReturns
from policies.model.row_blocks import BLOCK, is_exact, padded, rows_in_blocks

MOST_ARRANGEMENTS = 32
"""Arrangements of rows by task whose tokens are kept without their contributions' values."""


@dataclass(frozen=True)
class NewTokens:
    """Arguments of :meth:`GatoNetwork.step`: ``[N, D]``, and int64 ``[N]`` twice; and whether
    each token sees itself alone, whatever cache there is."""

    embeddings: Tensor
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    alone: bool


class RowGroup:
    """Rows that are decoded as one batch, in one timestep.

    Args:
        decoders: Who acts; all act like the first.
        sizes: Rows of each.
        state: The state of all rows; written.
        first_row: Their first row in the cache.
        encoded: Their observations.
        uniforms: float32 ``[B, A]`` in [0, 1), random numbers of action tokens.
        retrieved: What demonstrations would do, ids and weights, both ``[B, ...]``; or None.
    """

    def __init__(
        self,
        decoders: Sequence[Decoder],
        sizes: Sequence[int],
        state: GatoState,
        first_row: int,
        encoded: TokenizedBatch,
        uniforms: NDArray[np.float32],
        retrieved: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None,
    ) -> None:
        decoder = decoders[0]
        self._decoder, self._network, self._plan = decoder, decoder.network, decoder.plan
        self._tasks, self._sizes = np.repeat([each.task_row for each in decoders], sizes), sizes
        self._state, self._encoded, self._first_row = state, encoded, first_row
        self._uniforms, self._ids = uniforms, np.empty((0, 0), np.int64)
        self._retrieved: tuple[Tensor, Tensor] | None = None
        if retrieved is not None:
            ids, weights = (torch.from_numpy(each).to(decoder.device) for each in retrieved)
            self._retrieved = ids, weights
        self._last_tokens: NDArray[np.int64] | None = None
        self._chosen: list[Tensor] = []

    @property
    def complete(self) -> bool:
        """Whether every action token is chosen."""
        return len(self._chosen) == self._plan.num_actions or len(self._ids) > 0

    def embed_observations(self) -> NewTokens:
        """Pending action tokens, emitted texts and bodies; positions advance past them."""
        state, device = self._state, self._decoder.device
        embedding, count = self._network.embedding, state.rows
        texts: dict[int, Tensor] = {}
        for row, text in self._emitted_texts().items():
            if not len(text):
                state.conditions[row] = 0
            else:
                texts[row] = torch.from_numpy(text.astype(np.int64)).to(device)
                state.conditions[row] = embedding.encode_texts(texts[row][None])[0]
        bodies = self._bodies()  # [B, num_tokens, D]
        if not texts and (state.pending < 0).all():
            return self._bodies_alone(bodies)
        leads = (state.pending >= 0).astype(np.int64)
        before = leads + np.array([len(texts.get(row, ())) for row in range(count)], np.int64)
        sizes = before + self._plan.num_tokens
        stops = np.cumsum(sizes)
        starts = stops - sizes
        x_ND = bodies.new_empty(int(stops[-1]), bodies.shape[-1])
        places = (starts + before)[:, None] + np.arange(self._plan.num_tokens)
        x_ND[torch.from_numpy(places.ravel()).to(device)] = bodies.flatten(0, 1)
        if leads.any():
            led = np.flatnonzero(leads)
            pending = torch.from_numpy(state.pending[led]).to(device)
            x_ND[torch.from_numpy(starts[led]).to(device)] = embedding.action_tokens(pending)
        for row, ids in texts.items():
            begin = int(starts[row] + leads[row])
            x_ND[begin : begin + len(ids)] = embedding.text_tokens(ids)
        rows = np.repeat(np.arange(count), sizes)
        positions = (state.next_positions - starts)[rows] + np.arange(len(rows))
        state.next_positions += sizes
        self._last_tokens = stops - 1
        return NewTokens(x_ND, self._first_row + rows, positions, alone=False)

    def _bodies_alone(self, bodies: Tensor) -> NewTokens:
        """New tokens where no row has others than its body's."""
        count, length = bodies.shape[:2]
        places = np.arange(count * length).reshape(count, length)
        positions = (self._state.next_positions[:, None] + places[0]).ravel()
        self._state.next_positions += length
        self._last_tokens = places[:, -1]
        rows, alone = self._first_row + places.ravel() // length, self._decoder.sees_alone
        return NewTokens(bodies.flatten(0, 1), rows, positions, alone=alone)

    def embed_chosen(self) -> NewTokens:
        """The action tokens chosen last, one for each row."""
        rows = self._first_row + np.arange(self._state.rows)
        positions = self._state.next_positions + len(self._chosen) - 1
        x_BD = self._network.embedding.action_tokens(self._chosen[-1])
        return NewTokens(x_BD, rows, positions, alone=False)

    def choose_alone(self) -> bool:
        """Choose all action tokens at once, where they depend on one vector alone.

        Returns:
            Whether they are chosen.
        """
        lone = self._decoder.lone_vectors
        if lone is None:
            return False
        numbers = lone.numbers(self._encoded.vectors[:, 0], self._tasks)
        ids = []
        for run in self._decoder.all_runs:
            start, stop = self._plan.action_ranges[run.start].tolist()
            ids.append(nearest_bins(numbers[:, run.start : run.stop], stop - start) + start)
        self._ids = (ids[0] if len(ids) == 1 else torch.cat(ids, 1)).numpy()
        return True

    def choose(self, hidden_ND: Tensor, *, deterministic: bool) -> None:
        """Choose every row's next action token from its last new token's hidden vector.

        Where actions are chosen side by side, this chooses them all.
        """
        if self._last_tokens is not None:
            if len(hidden_ND) > len(self._last_tokens):
                hidden_ND = hidden_ND[torch.from_numpy(self._last_tokens).to(hidden_ND.device)]
            self._last_tokens = None
        if not self._plan.has_parallel_actions:
            places = range(len(self._chosen), len(self._chosen) + 1)
        else:
            places = range(self._plan.num_actions)
        randoms = torch.from_numpy(self._uniforms[:, places.start : places.stop])
        randoms = randoms.to(self._decoder.device)
        ids = [
            self._choose(hidden, random, places, deterministic, slice(BLOCK * n, BLOCK * (n + 1)))
            for n, (hidden, random) in enumerate(
                zip(hidden_ND.split(BLOCK), randoms.split(BLOCK), strict=True)
            )
        ]
        self._chosen += torch.cat(ids).unbind(1)

    def _choose(
        self,
        hidden_ND: Tensor,
        randoms_NP: Tensor,
        places: range,
        deterministic: bool,
        rows: slice,
    ) -> Tensor:
        """Ids int64 ``[N, P]`` of at most a block's rows."""
        count, regression = len(hidden_ND), self._network.config.continuous_head == "regression"
        if is_exact(hidden_ND):
            sizes = self._decoder.head_sizes.proven(self._random_scores)
            hidden_ND = padded(hidden_ND, rows_in_blocks(count, sizes))
        ids = []
        for together in self._decoder.runs(places):
            start, stop = self._plan.action_ranges[together.start].tolist()
            continuous = bool(self._plan.action_is_continuous[together.start])
            scores = self._scores(hidden_ND, together).flatten(0, 1)
            retrieved = self._retrieved_at(together, rows, len(hidden_ND))
            if continuous and regression:
                numbers = scores[:, 0]
                if retrieved is not None:
                    numbers = mixed_numbers(numbers, stop - start, retrieved)
                choice = nearest_bins(numbers, stop - start)
            else:
                first = together.start - places.start
                randoms = padded(randoms_NP[:, first : first + len(together)], len(hidden_ND))
                choice = self._decoder.sampler.choose(
                    scores, randoms.flatten(), continuous=continuous, deterministic=deterministic,
                    retrieved=retrieved,
                )  # fmt: skip
            ids.append(choice.view(len(hidden_ND), -1)[:count] + start)
        return torch.cat(ids, 1)

    def _retrieved_at(self, places: range, rows: slice, count: int) -> tuple[Tensor, Tensor] | None:
        """Retrieved choices at positions with the same legal ids, and their shares, ``[N * P]``."""
        if self._retrieved is None:
            return None
        start = int(self._plan.action_ranges[places.start][0])
        ids, shares = self._retrieved
        chosen = padded(ids[rows, places.start : places.stop] - start, count)
        repeated = padded(shares[rows, None].expand(-1, len(places)), count)
        return chosen.flatten(), repeated.flatten()

    def _scores(self, hidden_ND: Tensor, places: range) -> Tensor:
        """Logits of the ids of positions that have the same, or one number: ``[N, P, ids]``."""
        network, heads, count = self._network, self._network.action_heads, len(hidden_ND)
        owners, numbers = self._decoder.predictions(count, places)
        start, stop = self._plan.action_ranges[places.start].tolist()
        regression = network.config.continuous_head == "regression"
        if regression and self._plan.action_is_continuous[places.start]:
            scores = heads.numbers(hidden_ND, owners, numbers)[:, None]
        else:
            scores = network.symbol_logits(heads.at_places(hidden_ND, owners, numbers), start, stop)
        return scores.unflatten(0, (count, len(places)))

    def _random_scores(self, rows: int) -> Tensor:
        """Scores of all positions for random hidden vectors, and their means: ``[rows, n]``."""
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(BLOCK, self._network.config.width, generator=generator)[:rows]
        side_by_side = self._plan.has_parallel_actions
        places = range(self._plan.num_actions)
        runs = self._decoder.runs(places) if side_by_side else [range(p, p + 1) for p in places]
        scores = [self._scores(hidden, run) for run in runs]
        bins = [torch.arange(each.shape[-1], dtype=each.dtype) for each in scores]
        means = [each.softmax(-1) @ places for each, places in zip(scores, bins, strict=True)]
        return torch.cat([*(each.flatten(1) for each in scores), *means], 1)

    def finish(self) -> list[NDArray[np.int64]]:
        """Action ids int64 ``[B, A]`` of each decoder; the state is ready for the next step."""
        if len(self._ids) == 0:
            self._ids = torch.stack(self._chosen, 1).cpu().numpy()
            self._advance(self._ids)
        single = len(self._sizes) == 1
        return [self._ids] if single else np.split(self._ids, np.cumsum(self._sizes)[:-1])

    def _advance(self, ids: NDArray[np.int64]) -> None:
        memory = self._plan.options.memory
        if memory == "all":
            self._state.next_positions += self._plan.num_actions - 1
            self._state.pending[:] = ids[:, -1]
        elif memory == "none":
            self._state.next_positions[:] = self._network.config.prompt_tokens

    def _emitted_texts(self) -> dict[int, NDArray[np.int32]]:
        """The texts that are emitted now, by row."""
        emitted: dict[int, NDArray[np.int32]] = {}
        state, options = self._state, self._plan.options
        always = options.text == "always" or options.memory == "none"
        for row in range(state.rows if self._plan.has_text else 0):
            text = cut_text(np.asarray(self._encoded.text[row], np.int32))
            key = text.tobytes()
            if always or state.texts[row] != key or state.ages[row] >= options.text_refresh:
                emitted[row] = text
                state.texts[row], state.ages[row] = key, 0
            state.ages[row] += 1
        return emitted

    def _bodies(self) -> Tensor:
        """Embeddings of every row's body: float ``[B, num_tokens, D]``."""
        network, count, encoded = self._network, self._state.rows, self._encoded
        exact = network.is_exact
        sizes = self._decoder.body_sizes.proven(self._random_bodies) if exact else ()
        bodies = []
        for first in range(0, count, BLOCK if exact else count):
            rest = min(count - first, BLOCK) if exact else count
            size = rows_in_blocks(rest, sizes) if exact else count
            rows = np.minimum(np.arange(first, first + size), count - 1)
            arrays = TimestepArrays(
                ids=encoded.ids[rows],
                vectors=encoded.vectors[rows],
                grids=encoded.grids[rows],
                images=encoded.images[rows],
                actions=np.zeros((size, 0), np.int64),
            )
            conditions = self._conditions(rows)
            returns = self._state.returns[rows]
            bodies.append(self._embedded(arrays, conditions, self._tasks[rows], returns)[:rest])
        return torch.cat(bodies)

    def _conditions(self, rows: NDArray[np.int64]) -> Tensor:
        """The encoded texts of some rows, the last of which may be repeated; without a copy of what
        the text says of objects where no grid asks for it, or where no row is repeated."""
        conditions, first = self._state.conditions, int(rows[0])
        if not self._plan.grid_size[2]:
            conditions = conditions[:, : self._network.config.width]
        elif rows[-1] == first + len(rows) - 1:
            return conditions[first : first + len(rows)]
        return conditions[torch.from_numpy(rows).to(self._decoder.device)]

    def _embedded(
        self,
        arrays: TimestepArrays,
        conditions: Tensor,
        tasks: NDArray[np.int64],
        returns: NDArray[np.float64],
    ) -> Tensor:
        """Embeddings of some rows' bodies: float ``[N, num_tokens, D]``."""
        plan, size = self._plan, len(tasks)
        known, key = self._decoder.body_tokens, tuple(tasks.tolist())
        if key in known:
            tokens = with_parts(known[key], arrays)
        else:
            collector = TokenCollector(size, plan.num_tokens)
            collector.add_parts(plan, np.arange(size) * plan.num_tokens, arrays)
            if plan.has_text:
                collector.conditions[:] = np.arange(size)[:, None]
            collector.tasks[:] = tasks[:, None]
            tokens = collector.finish().to(self._decoder.device)
            if len(known) >= MOST_ARRANGEMENTS:
                known.clear()
            known[key] = tokens
        x_NTD = self._network.embedding(tokens, conditions)
        if self._network.return_embedding is None:
            return x_NTD
        carried = torch.from_numpy(returns.astype(np.float32)).repeat_interleave(plan.num_tokens)
        slots = torch.arange(len(carried))
        return self._network.with_returns(
            x_NTD, TimestepReturns(slots, carried).to(self._decoder.device)
        )

    def _random_bodies(self, rows: int) -> Tensor:
        """Embeddings of random bodies of this layout: ``[rows, n]``."""
        encoded, generator = self._encoded, np.random.default_rng(0)

        def some(like: NDArray[Any], *, top: int = 0) -> NDArray[Any]:
            shape = (BLOCK, *like.shape[1:])
            drawn = generator.integers(0, top, shape) if top else generator.normal(size=shape)
            return drawn[:rows].astype(like.dtype)

        arrays = TimestepArrays(
            ids=encoded.ids[:1].repeat(rows, axis=0),
            vectors=some(encoded.vectors),
            grids=some(encoded.grids, top=self._network.config.grid_symbols),
            images=some(encoded.images, top=256),
            actions=np.zeros((rows, 0), np.int64),
        )
        conditions = some(self._state.conditions.numpy()[:1])
        tasks = np.resize(self._tasks[:1], rows)
        returns = generator.normal(size=BLOCK)[:rows]
        return self._embedded(arrays, torch.from_numpy(conditions), tasks, returns).flatten(1)
