"""Acting step by step: a batch of episodes through the network and its cache.

* :class:`Decoder` -- observations in, action ids out, for one plan and prompt.
* :func:`decode` -- drives decoders, of one plan or of several at once.
* :class:`GatoState` -- what a batch of running episodes needs.

A timestep costs one pass of the backbone for each action token and none besides: every row's new
tokens (its last action token where that is remembered, its text where that is emitted, its body)
give the first, each chosen token the next. Whatever rounds is computed in blocks of a fixed number
of rows, so that a row's numbers do not depend on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.spaces import Plan, TokenizedBatch
from policies.chance import RowGenerator
from policies.gato.sampling import Sampler
from policies.model.embedding import TEXT_PLACES
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork
from policies.model.row_blocks import BLOCK, block_size
from policies.model.sequence import TimestepArrays, TokenCollector, cut_text


@dataclass(frozen=True)
class NewTokens:
    """Tokens to feed: arguments of :meth:`policies.model.network.GatoNetwork.step`.

    Attributes:
        embeddings: float ``[N, D]``.
        rows: int64 ``[N]``.
        positions: int64 ``[N]``.
    """

    embeddings: Tensor
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]


@dataclass
class GatoState:
    """Everything a batch of running episodes needs. ``predict`` writes into it.

    Attributes:
        cache: Keys and values.
        next_positions: int64 ``[B]``, position of the next token of each row.
        pending: int64 ``[B]``, last action token, when it is to enter with the next observation;
            else -1.
        conditions: float ``[B, D]``, the text that each row acts under.
        texts: object ``[B]``, the text each row saw last, as bytes of its ids; None before.
        ages: int64 ``[B]``, timesteps since it was emitted.
        generators: object ``[B]``, each row's :class:`policies.chance.RowGenerator`.
    """

    cache: RingCache
    next_positions: NDArray[np.int64]
    pending: NDArray[np.int64]
    conditions: Tensor
    texts: NDArray[np.object_]
    ages: NDArray[np.int64]
    generators: NDArray[np.object_]

    @property
    def rows(self) -> int:
        """B."""
        return len(self.pending)

    def part(self, rows: slice) -> GatoState:
        """A view of some rows: what is written into it is written here."""
        return GatoState(
            self.cache.part(rows),
            self.next_positions[rows],
            self.pending[rows],
            self.conditions[rows],
            self.texts[rows],
            self.ages[rows],
            self.generators[rows],
        )

    def take(self, rows: NDArray[np.int64]) -> GatoState:
        """A copy of some rows, in this order."""
        index = torch.from_numpy(rows).to(self.conditions.device)
        return GatoState(
            self.cache.take(index),
            self.next_positions[rows],
            self.pending[rows],
            self.conditions[index],
            self.texts[rows],
            self.ages[rows],
            self.generators[rows],
        )

    @classmethod
    def join(cls, states: Sequence[GatoState], cache: RingCache | None = None) -> GatoState:
        """The rows of several states, one state after another, as one of its own.

        Args:
            states: One or more.
            cache: Of all these rows, where there is one already; None joins their caches.

        Raises:
            ValueError: Their caches have other sizes.
        """
        return cls(
            RingCache.join([state.cache for state in states]) if cache is None else cache,
            np.concatenate([state.next_positions for state in states]),
            np.concatenate([state.pending for state in states]),
            torch.cat([state.conditions for state in states]),
            np.concatenate([state.texts for state in states]),
            np.concatenate([state.ages for state in states]),
            np.concatenate([state.generators for state in states]),
        )


class Decoder:
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
        self._layout = _layout(plan)

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
        """Whether rows of both can be handed to :meth:`act` of either, as one batch."""
        if self.network is not other.network or self.sampler != other.sampler:
            return False
        return self._layout == other._layout

    def new_state(self, rows: int, cache: RingCache | None = None) -> GatoState:
        """The state of ``rows`` episodes that have not begun.

        Args:
            rows: B.
            cache: Of these rows, with ``ring`` live slots and ``prompt_slots`` pinned ones, or
                more of either; None makes one.
        """
        config, pinned = self.network.config, self.pinned
        like = self.network.head.weight
        if cache is None:
            cache = RingCache.empty(
                config, rows=rows, ring=self.ring, pinned=self.prompt_slots, like=like
            )
        if pinned is not None:
            cache.keys[..., : pinned.pinned] = pinned.keys[..., : pinned.pinned]
            cache.values[..., : pinned.pinned] = pinned.values[..., : pinned.pinned]
            cache.positions[:, : pinned.pinned] = pinned.positions[:, : pinned.pinned]
        return GatoState(
            cache=cache,
            next_positions=np.full(rows, config.prompt_tokens, np.int64),
            pending=np.full(rows, -1, np.int64),
            conditions=torch.zeros(rows, config.width, device=like.device),
            texts=np.full(rows, None, np.object_),
            ages=np.zeros(rows, np.int64),
            generators=np.full(rows, RowGenerator(), np.object_),
        )

    def restart(self, state: GatoState, starts: NDArray[np.bool_]) -> None:
        """Forget the episodes of the rows that start one; the pinned prompt stays."""
        prompt, pinned = self.network.config.prompt_tokens, state.cache.pinned
        for row in np.flatnonzero(starts).tolist():
            state.cache.positions[row, pinned:] = -1
            state.next_positions[row], state.pending[row] = prompt, -1
            state.texts[row], state.ages[row] = None, 0

    def act(
        self,
        state: GatoState,
        encoded: TokenizedBatch,
        uniforms: NDArray[np.float32],
        *,
        deterministic: bool,
    ) -> Generator[NewTokens, Tensor, NDArray[np.int64]]:
        """Choose action ids of every row, by asking for one forward for each action token.

        Args:
            state: Of the rows; written.
            encoded: Their observations.
            uniforms: float32 ``[B, A]`` in [0, 1), random numbers of each row and action token.
            deterministic: No sampling.

        Yields:
            New tokens; what is sent in answer is their hidden vectors ``[N, D]``.

        Returns:
            int64 ``[B, A]``.
        """
        plan, network = self.plan, self.network
        hidden_BD = yield from self._observe(state, encoded)
        first, rows = state.next_positions.copy(), np.arange(state.rows)
        randoms = torch.from_numpy(uniforms).to(self.device)
        chosen: list[Tensor] = []
        for j in range(plan.num_actions):
            if j:
                x_BD = network.embedding.action_tokens(chosen[-1])
                hidden_BD = yield NewTokens(x_BD, rows, first + j - 1)
            chosen.append(self._choose(hidden_BD, j, randoms[:, j], deterministic=deterministic))
        ids = torch.stack(chosen, 1).cpu().numpy()
        memory = plan.options.memory
        if memory == "all":
            state.next_positions += plan.num_actions - 1
            state.pending[:] = ids[:, -1]
        elif memory == "none":
            state.next_positions[:] = network.config.prompt_tokens
        return ids

    def _choose(self, hidden_BD: Tensor, j: int, randoms: Tensor, *, deterministic: bool) -> Tensor:
        """Ids of action token ``j``: int64 ``[B]``."""
        plan = self.plan
        start, stop = plan.action_ranges[j].tolist()
        size = block_size(hidden_BD)
        ids = []
        for hidden, random in zip(hidden_BD.split(size), randoms.split(size), strict=True):
            missing = size - len(hidden)
            logits = self.network.symbol_logits(F.pad(hidden, (0, 0, 0, missing)), start, stop)
            choice = self.sampler.choose(
                logits,
                F.pad(random, (0, missing)),
                continuous=bool(plan.action_is_continuous[j]),
                deterministic=deterministic,
            )
            ids.append(choice[: len(hidden)] + start)
        return torch.cat(ids)

    def _emissions(self, state: GatoState, encoded: TokenizedBatch) -> dict[int, NDArray[np.int32]]:
        """The rows that emit their text now, and what they emit."""
        emitted: dict[int, NDArray[np.int32]] = {}
        options = self.plan.options
        always = options.text == "always" or options.memory == "none"
        for row in range(state.rows if self.plan.has_text else 0):
            text = cut_text(np.asarray(encoded.text[row], np.int32))
            key = text.tobytes()
            if always or state.texts[row] != key or state.ages[row] >= options.text_refresh:
                emitted[row] = text
                state.texts[row], state.ages[row] = key, 0
            state.ages[row] += 1
        return emitted

    def _observe(
        self, state: GatoState, encoded: TokenizedBatch
    ) -> Generator[NewTokens, Tensor, Tensor]:
        """Feed the observations; the hidden vectors ``[B, D]`` that predict the first action token.

        Afterwards ``next_positions`` is the position of the first action token.
        """
        embedding, device, count = self.network.embedding, self.device, state.rows
        texts: dict[int, Tensor] = {}
        for row, text in self._emissions(state, encoded).items():
            if len(text):
                texts[row] = torch.from_numpy(text.astype(np.int64)).to(device)
                state.conditions[row] = embedding.encode_texts(texts[row][None])[0]
        bodies = self._bodies(state, encoded)  # [B, num_tokens, D]
        leads = (state.pending >= 0).astype(np.int64)
        before = leads + np.array([len(texts.get(row, ())) for row in range(count)], np.int64)
        sizes = before + self.plan.num_tokens
        stops = np.cumsum(sizes)
        starts = stops - sizes
        x_ND = bodies.new_empty(int(stops[-1]), bodies.shape[-1])
        places = (starts + before)[:, None] + np.arange(self.plan.num_tokens)
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
        hidden_ND = yield NewTokens(x_ND, rows, positions)
        state.next_positions += sizes
        return hidden_ND[torch.from_numpy(stops - 1).to(device)]

    def _bodies(self, state: GatoState, encoded: TokenizedBatch) -> Tensor:
        """Embeddings of every row's body: float ``[B, num_tokens, D]``."""
        plan, count = self.plan, state.rows
        exact = self.device.type == "cpu" and self.network.precision == "float32"
        size = BLOCK if exact else count
        bodies = []
        for first in range(0, count, size):
            rows = np.minimum(np.arange(first, first + size), count - 1)
            collector = TokenCollector(size, plan.num_tokens)
            arrays = _timesteps(encoded, rows)
            collector.add_parts(plan, np.arange(size) * plan.num_tokens, arrays)
            if plan.has_text:
                collector.conditions[:] = np.arange(size)[:, None]
            conditions = state.conditions[torch.from_numpy(rows).to(self.device)]
            tokens = collector.finish().to(self.device)
            bodies.append(self.network.embedding(tokens, conditions)[: count - first])
        return torch.cat(bodies)


@torch.inference_mode()
def decode(
    network: GatoNetwork,
    cache: RingCache,
    groups: Sequence[Generator[NewTokens, Tensor, NDArray[np.int64]]],
    sizes: Sequence[int],
) -> list[NDArray[np.int64]]:
    """Let groups of rows act together, each forward taking all their new tokens at once.

    Args:
        network: The weights.
        cache: Of the rows of all groups, one group after another.
        groups: From :meth:`Decoder.act` of each group, whose state's cache is its part of
            ``cache``.
        sizes: Rows of each group.

    Returns:
        Each group's action ids, ``[B, A]`` of its own.
    """
    offsets = np.cumsum([0, *sizes]).tolist()
    action_ids: dict[int, NDArray[np.int64]] = {}
    answers: dict[int, Tensor | None] = dict.fromkeys(range(len(groups)))
    while answers:
        asked: dict[int, NewTokens] = {}
        for group, answer in answers.items():
            try:
                acting = groups[group]
                asked[group] = next(acting) if answer is None else acting.send(answer)
            except StopIteration as stop:
                action_ids[group] = stop.value
        if not asked:
            break
        hidden_ND = network.step(
            torch.cat([tokens.embeddings for tokens in asked.values()]),
            np.concatenate([tokens.rows + offsets[group] for group, tokens in asked.items()]),
            np.concatenate([tokens.positions for tokens in asked.values()]),
            cache,
        )
        parts = hidden_ND.split([len(tokens.rows) for tokens in asked.values()])
        answers = dict(zip(asked, parts, strict=True))
    return [action_ids[group] for group in range(len(groups))]


def _layout(plan: Plan) -> tuple[object, ...]:
    """All of a plan that decides what becomes of an encoded observation."""
    options = plan.options
    arrays = (
        *(plan.id_slots, plan.vector_slots, plan.grid_slots, plan.image_slots),
        *(plan.id_places, plan.vector_places, plan.grid_places, plan.image_places),
        *(plan.image_intervals, plan.action_ranges, plan.action_is_continuous),
    )
    return (
        *(plan.num_tokens, plan.num_actions, plan.has_text, plan.vocabulary),
        *(options.text, options.text_refresh, options.memory),
        *(options.vector_size, plan.image_shape, plan.grid_size),
        *(np.asarray(array).tobytes() for array in arrays),
    )


def _timesteps(encoded: TokenizedBatch, rows: NDArray[np.int64]) -> TimestepArrays:
    return TimestepArrays(
        ids=encoded.ids[rows],
        vectors=encoded.vectors[rows],
        grids=encoded.grids[rows],
        images=encoded.images[rows],
        actions=np.zeros((len(rows), 0), np.int64),
    )
