"""Acting step by step: a batch of episodes through the network and its cache.

* :func:`act` -- observations in, actions out, for rows of one task or of several.

A timestep costs one pass of the backbone for each action token: every row's new tokens (its last
action token if remembered, its text if emitted, its body) give the first, each chosen token the
next. Actions that are chosen side by side cost one pass together. Rounding operations run in blocks
of fixed numbers of rows, so that a row's numbers do not depend on the size of its batch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.spaces import TokenizedBatch
from policies.base import Span
from policies.gato.decoder import Decoder
from policies.gato.row_group import NewTokens, RowGroup
from policies.gato.state import GatoState
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork


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
    parts = [state] if len(decoders) == 1 else [state.part(part) for part in rows]
    with span("tokenising"):
        encoded = [
            decoder.plan.encode_batch(observation)
            for decoder, observation in zip(decoders, observations, strict=True)
        ]
    uniforms = [
        decoder.begin(part, observation, start, deterministic=deterministic)
        for decoder, part, observation, start in zip(
            decoders, parts, observations, starts, strict=True
        )
    ]
    retrieved = [
        decoder.retrieved(observation)
        for decoder, observation in zip(decoders, observations, strict=True)
    ]
    groups = _grouped(decoders, rows, encoded, uniforms, retrieved, state)
    acting = [group for group in groups if not group.choose_alone()]
    tokens = [group.embed_observations() for group in acting]
    while acting:
        hidden = _step(decoders[0].network, tokens, state.cache)
        for group, hidden_ND in zip(acting, hidden, strict=True):
            group.choose(hidden_ND, deterministic=deterministic)
        acting = [group for group in acting if not group.complete]
        tokens = [group.embed_chosen() for group in acting]
    ids = [part for group in groups for part in group.finish()]
    with span("tokenising"):
        return [
            decoder.plan.decode_batch(part) for decoder, part in zip(decoders, ids, strict=True)
        ]


def row_spans(sizes: Sequence[int]) -> list[slice]:
    """The rows of batches that follow each other."""
    stops = list(itertools.accumulate(sizes))
    return [slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


def _step(network: GatoNetwork, tokens: Sequence[NewTokens], cache: RingCache) -> list[Tensor]:
    """Hidden vectors ``[N, D]`` of each group's new tokens, from one forward of those that need the
    cache and one of the others."""
    hidden: dict[int, Tensor] = {}
    for alone in (False, True):
        places = [place for place, each in enumerate(tokens) if each.alone == alone]
        if not places:
            continue
        some = [tokens[place] for place in places]
        x_ND = torch.cat([each.embeddings for each in some])
        if alone:
            hidden_ND = network.backbone.lone_tokens.hidden(x_ND)
        else:
            rows = np.concatenate([each.rows for each in some])
            positions = np.concatenate([each.positions for each in some])
            hidden_ND = network.step(x_ND, rows, positions, cache)
        parts = hidden_ND.split([len(each.rows) for each in some])
        hidden.update(zip(places, parts, strict=True))
    return [hidden[place] for place in range(len(tokens))]


def _grouped(
    decoders: Sequence[Decoder],
    rows: Sequence[slice],
    encoded: Sequence[TokenizedBatch],
    uniforms: Sequence[NDArray[np.float32]],
    retrieved: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]] | None],
    state: GatoState,
) -> list[RowGroup]:
    """Neighbouring decoders that act alike become one batch."""
    groups, first = [], 0
    while first < len(decoders):
        stop = first + 1
        while stop < len(decoders) and decoders[first].acts_like(decoders[stop]):
            stop += 1
        span = slice(rows[first].start, rows[stop - 1].stop)
        single = stop - first == 1
        joined = encoded[first] if single else TokenizedBatch.join(encoded[first:stop])
        randoms = uniforms[first] if single else np.concatenate(uniforms[first:stop])
        sizes = [each.stop - each.start for each in rows[first:stop]]
        part = state if stop - first == len(decoders) else state.part(span)
        said = [each for each in retrieved[first:stop] if each is not None]
        near = None
        if said:
            choices, weights = zip(*said, strict=True)
            near = np.concatenate(choices), np.concatenate(weights)
        group = RowGroup(decoders[first:stop], sizes, part, span.start, joined, randoms, near)
        groups.append(group)
        first = stop
    return groups
