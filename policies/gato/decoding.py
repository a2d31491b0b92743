"""Acting step by step: a batch of episodes through the network and its cache.

* :func:`act` -- observations in, actions out, for rows of one task or of several.
* :class:`Decoder` -- what acts in one pair of spaces: a network, a plan, a prompt, a seed.

A timestep costs one pass of the backbone for each action token: every row's new tokens (its last
action token if remembered, its text if emitted, its body) give the first, each chosen token the
next. Actions that are chosen side by side cost one pass together. Rounding operations run in blocks
of a fixed number of rows, so that a row's numbers do not depend on the size of its batch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.spaces import Plan, TokenizedBatch
from policies.base import Span
from policies.chance import RowGenerator, begin_episodes
from policies.gato.sampling import Sampler, nearest_bins
from policies.gato.state import GatoState
from policies.model.embedding import TEXT_PLACES
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork
from policies.model.row_blocks import BLOCK, block_size
from policies.model.sequence import TimestepArrays, TokenCollector, cut_text


class Decoder:
    """What acts in one pair of spaces.

    Args:
        network: The weights.
        plan: How the spaces become tokens.
        sampler: How action tokens are chosen.
        pinned: A cache row with the encoded prompt, or None.
        seed: Seed of the sampled actions.
        task: Id of the task; without a prompt, its learned embedding says what is played.
    """

    def __init__(
        self,
        network: GatoNetwork,
        plan: Plan,
        sampler: Sampler,
        pinned: RingCache | None,
        seed: int,
        *,
        task: str | None = None,
    ) -> None:
        self.network, self.plan, self.sampler, self.pinned = network, plan, sampler, pinned
        self.seed, self._layout = seed, _layout(plan)
        named = network.config.tasks if pinned is None else ()
        self.task_row = named.index(task) if task in named else -1

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def prompt_slots(self) -> int:
        """Slots of a row that hold the prompt."""
        return 0 if self.pinned is None else self.pinned.pinned

    @property
    def ring(self) -> int:
        """Live slots of a row: the window and the longest chunk."""
        plan = self.plan
        chunk = plan.num_tokens + plan.num_actions + 1 + TEXT_PLACES * plan.has_text
        return chunk + (0 if plan.options.memory == "none" else self.network.config.window)

    def acts_like(self, other: Decoder) -> bool:
        """Whether encoded rows of both can be decoded as one batch."""
        if self.network is not other.network or self.sampler != other.sampler:
            return False
        return self._layout == other._layout

    def empty_cache(self, rows: int) -> RingCache:
        """A cache for ``rows`` episodes."""
        return RingCache.empty(
            self.network.config,
            rows=rows,
            ring=self.ring,
            pinned=self.prompt_slots,
            like=self.network.head.weight,
        )

    def new_state(self, rows: int, cache: RingCache | None = None) -> GatoState:
        """The state of ``rows`` episodes that have not begun.

        Args:
            rows: B.
            cache: The cache of these rows, with at least ``ring`` live slots and ``prompt_slots``
                pinned ones; None makes one.
        """
        config, pinned = self.network.config, self.pinned
        cache = self.empty_cache(rows) if cache is None else cache
        if pinned is not None:
            cache.keys[..., : pinned.pinned] = pinned.keys[..., : pinned.pinned]
            cache.values[..., : pinned.pinned] = pinned.values[..., : pinned.pinned]
            cache.positions[:, : pinned.pinned] = pinned.positions[:, : pinned.pinned]
        return GatoState(
            cache=cache,
            next_positions=np.full(rows, config.prompt_tokens, np.int64),
            pending=np.full(rows, -1, np.int64),
            conditions=torch.zeros(rows, config.width, device=self.network.head.weight.device),
            texts=np.full(rows, None, np.object_),
            ages=np.zeros(rows, np.int64),
            generators=np.full(rows, RowGenerator(), np.object_),
        )

    def begin(
        self, state: GatoState, observation: Any, starts: NDArray[np.bool_], *, deterministic: bool
    ) -> NDArray[np.float32]:
        """Restart the rows that begin an episode; the pinned prompt stays.

        Returns:
            float32 ``[B, A]`` in [0, 1), the random numbers of the timestep's action tokens.
        """
        space = self.plan.observation_space
        begun = begin_episodes(
            state.generators, starts, seed=self.seed, space=space, observation=observation
        )
        for row in np.flatnonzero(begun).tolist():
            state.cache.positions[row, state.cache.pinned :] = -1
            state.next_positions[row] = self.network.config.prompt_tokens
            state.pending[row], state.texts[row], state.ages[row] = -1, None, 0
        uniforms = np.zeros((len(starts), self.plan.num_actions), np.float32)
        if not deterministic:
            for row, generator in enumerate(state.generators):
                uniforms[row] = generator.under_way.random(self.plan.num_actions, np.float32)
        return uniforms


@torch.inference_mode()
def act(
    decoders: Sequence[Decoder],
    observations: Sequence[Any],
    starts: Sequence[NDArray[np.bool_]],
    state: GatoState,
    *,
    deterministic: bool,
    span: Span = contextlib.nullcontext,
) -> list[Any]:
    """Choose the actions of one timestep, with one forward for each action token.

    Args:
        decoders: Who acts; all share one network.
        observations: A batch for each decoder.
        starts: bool ``[B]`` for each, True for rows that begin an episode.
        state: The state of all rows, one decoder's after another's; written.
        deterministic: Choose the most likely actions instead of sampling.
        span: Measures ``"tokenising"``.

    Returns:
        A batch of actions for each decoder.
    """
    rows = row_spans([len(each) for each in starts])
    with span("tokenising"):
        encoded = [
            decoder.plan.encode_batch(observation)
            for decoder, observation in zip(decoders, observations, strict=True)
        ]
    uniforms = [
        decoder.begin(state.part(own), observation, start, deterministic=deterministic)
        for decoder, own, observation, start in zip(
            decoders, rows, observations, starts, strict=True
        )
    ]
    groups = _grouped(decoders, rows, encoded, uniforms, state)
    acting, tokens = groups, [group.embed_observations() for group in groups]
    while acting:
        hidden = _step(decoders[0].network, tokens, state.cache)
        for group, hidden_ND in zip(acting, hidden, strict=True):
            group.choose(hidden_ND, deterministic=deterministic)
        acting = [group for group in acting if not group.complete]
        tokens = [group.embed_chosen() for group in acting]
    ids = [row for group in groups for row in group.finish()]
    with span("tokenising"):
        return [
            decoder.plan.decode_batch(np.stack(ids[own]))
            for decoder, own in zip(decoders, rows, strict=True)
        ]


def row_spans(sizes: Sequence[int]) -> list[slice]:
    """The rows of batches that follow each other."""
    stops = np.cumsum(sizes).tolist()
    return [slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


@dataclass(frozen=True)
class _NewTokens:
    """Arguments of :meth:`GatoNetwork.step`: ``[N, D]``, and int64 ``[N]`` twice."""

    embeddings: Tensor
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]


def _step(network: GatoNetwork, tokens: Sequence[_NewTokens], cache: RingCache) -> Sequence[Tensor]:
    """Hidden vectors ``[N, D]`` of each group's new tokens, from one forward."""
    hidden_ND = network.step(
        torch.cat([each.embeddings for each in tokens]),
        np.concatenate([each.rows for each in tokens]),
        np.concatenate([each.positions for each in tokens]),
        cache,
    )
    return hidden_ND.split([len(each.rows) for each in tokens])


def _grouped(
    decoders: Sequence[Decoder],
    rows: Sequence[slice],
    encoded: Sequence[TokenizedBatch],
    uniforms: Sequence[NDArray[np.float32]],
    state: GatoState,
) -> list[_Group]:
    """Neighbouring decoders that act alike become one batch."""
    groups, first = [], 0
    while first < len(decoders):
        stop = first + 1
        while stop < len(decoders) and decoders[first].acts_like(decoders[stop]):
            stop += 1
        span = slice(rows[first].start, rows[stop - 1].stop)
        joined = TokenizedBatch.join(encoded[first:stop]) if stop - first > 1 else encoded[first]
        randoms = np.concatenate(uniforms[first:stop])
        sizes = [own.stop - own.start for own in rows[first:stop]]
        tasks = np.repeat([decoder.task_row for decoder in decoders[first:stop]], sizes)
        part = state.part(span)
        groups.append(_Group(decoders[first], part, span.start, joined, randoms, tasks))
        first = stop
    return groups


class _Group:
    """Rows that are decoded as one batch, in one timestep."""

    def __init__(
        self,
        decoder: Decoder,
        state: GatoState,
        first_row: int,
        encoded: TokenizedBatch,
        uniforms: NDArray[np.float32],
        tasks: NDArray[np.int64],
    ) -> None:
        self._decoder, self._network, self._plan = decoder, decoder.network, decoder.plan
        self._tasks = tasks
        self._state, self._encoded, self._first_row = state, encoded, first_row
        self._uniforms = torch.from_numpy(uniforms).to(decoder.device)
        self._last_tokens: NDArray[np.int64] | None = None
        self._chosen: list[Tensor] = []

    @property
    def complete(self) -> bool:
        """Whether every action token is chosen."""
        return len(self._chosen) == self._plan.num_actions

    def embed_observations(self) -> _NewTokens:
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
        return _NewTokens(x_ND, self._first_row + rows, positions)

    def embed_chosen(self) -> _NewTokens:
        """The action tokens chosen last, one for each row."""
        rows = self._first_row + np.arange(self._state.rows)
        positions = self._state.next_positions + len(self._chosen) - 1
        x_BD = self._network.embedding.action_tokens(self._chosen[-1])
        return _NewTokens(x_BD, rows, positions)

    def choose(self, hidden_ND: Tensor, *, deterministic: bool) -> None:
        """Choose every row's next action token from its last new token's hidden vector.

        Where actions are chosen side by side, this chooses them all.
        """
        if self._last_tokens is not None:
            hidden_ND = hidden_ND[torch.from_numpy(self._last_tokens).to(hidden_ND.device)]
            self._last_tokens = None
        if not self._plan.has_parallel_actions:
            places = range(len(self._chosen), len(self._chosen) + 1)
        else:
            places = range(self._plan.num_actions)
        size, ids = block_size(hidden_ND), []
        randoms = self._uniforms[:, places.start : places.stop]
        for hidden, random in zip(hidden_ND.split(size), randoms.split(size), strict=True):
            missing = (0, 0, 0, size - len(hidden))
            chosen = self._choose(
                F.pad(hidden, missing), F.pad(random, missing), places, deterministic
            )
            ids.append(chosen[: len(hidden)])
        self._chosen += torch.cat(ids).unbind(1)

    def _choose(
        self, hidden_ND: Tensor, randoms_NP: Tensor, places: range, deterministic: bool
    ) -> Tensor:
        """Ids int64 ``[N, P]``; positions of the same ids are chosen from together."""
        plan, network, heads = self._plan, self._network, self._network.action_heads
        ids, rows = [], torch.arange(len(hidden_ND), device=hidden_ND.device)
        for (start, stop), run in itertools.groupby(
            places, key=lambda place: tuple(plan.action_ranges[place].tolist())
        ):
            together = list(run)
            continuous = bool(plan.action_is_continuous[together[0]])
            numbers = torch.tensor(together, device=hidden_ND.device).repeat(len(hidden_ND))
            numbers = numbers if plan.has_parallel_actions else torch.full_like(numbers, -1)
            predicted = (hidden_ND, rows.repeat_interleave(len(together)), numbers)
            if continuous and network.config.continuous_head == "regression":
                choice = nearest_bins(heads.numbers(*predicted), stop - start)
            else:
                randoms = randoms_NP[:, [place - places.start for place in together]]
                choice = self._decoder.sampler.choose(
                    network.symbol_logits(heads.at_places(*predicted), start, stop),
                    randoms.flatten(),
                    continuous=continuous,
                    deterministic=deterministic,
                )
            ids.append(choice.view(len(hidden_ND), -1) + start)
        return torch.cat(ids, 1)

    def finish(self) -> NDArray[np.int64]:
        """Action ids, int64 ``[B, A]``; the state is ready for the next timestep."""
        ids = torch.stack(self._chosen, 1).cpu().numpy()
        memory = self._plan.options.memory
        if memory == "all":
            self._state.next_positions += self._plan.num_actions - 1
            self._state.pending[:] = ids[:, -1]
        elif memory == "none":
            self._state.next_positions[:] = self._network.config.prompt_tokens
        return ids

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
        plan, network, count = self._plan, self._network, self._state.rows
        device, encoded = self._decoder.device, self._encoded
        exact = device.type == "cpu" and network.precision == "float32"
        size = BLOCK if exact else count
        bodies = []
        for first in range(0, count, size):
            rows = np.minimum(np.arange(first, first + size), count - 1)
            arrays = TimestepArrays(
                ids=encoded.ids[rows],
                vectors=encoded.vectors[rows],
                grids=encoded.grids[rows],
                images=encoded.images[rows],
                actions=np.zeros((size, 0), np.int64),
            )
            collector = TokenCollector(size, plan.num_tokens)
            collector.add_parts(plan, np.arange(size) * plan.num_tokens, arrays)
            if plan.has_text:
                collector.conditions[:] = np.arange(size)[:, None]
            collector.tasks[:] = self._tasks[rows, None]
            conditions = self._state.conditions[torch.from_numpy(rows).to(device)]
            tokens = collector.finish().to(device)
            bodies.append(network.embedding(tokens, conditions)[: count - first])
        return torch.cat(bodies)


def _layout(plan: Plan) -> tuple[object, ...]:
    """All of a plan that decides how encoded observations are decoded."""
    options = plan.options
    arrays = (
        *(plan.id_slots, plan.vector_slots, plan.grid_slots, plan.image_slots),
        *(plan.id_places, plan.vector_places, plan.grid_places, plan.image_places),
        *(plan.image_intervals, plan.action_ranges, plan.action_is_continuous),
    )
    return (
        *(plan.num_tokens, plan.num_actions, plan.has_text, plan.vocabulary),
        *(options.text, options.text_refresh, options.memory, options.actions),
        *(options.vector_size, plan.image_shape, plan.grid_size),
        *(np.asarray(array).tobytes() for array in arrays),
    )
