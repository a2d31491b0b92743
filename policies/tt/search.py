"""Beam search for the trajectory of the highest return (arXiv 2106.02039, section 3.2).

Each beam is a sequence of tokens. A transition of it is drawn token by token from the network: an
action, then what it brings: the reward and the return after it, both as expected by the network.
Beams are valued by

    r_1 + γ r_2 + … + γ^(h - 2) r_(h - 1) + γ^(h - 1) R_h

where R_h is the return from the last transition on, its own reward in it. The best beams go on,
each by several draws, up to the horizon. The first action of the best is chosen.

* :class:`Search` -- how far and how broadly.
* :func:`plan` -- the searches of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.ranges import check_range
from policies.model.kv_cache import RingCache
from policies.tt.discretizer import Discretizer
from policies.tt.network import TtConfig, TtNetwork


@dataclass(frozen=True)
class Search:
    """How far and how broadly is searched.

    Attributes:
        horizon: h, transitions of a plan.
        beams: Plans that go on.
        draws: Actions that each draws.
        action_share: Draws are among the likeliest bins of an action that have this share together.
        history: Past transitions that are seen.

    Raises:
        ValueError: A number is out of range.
    """

    horizon: int = 3
    beams: int = 8
    draws: int = 2
    action_share: float = 0.6
    history: int = 4

    def __post_init__(self) -> None:
        check_range(self, "horizon", "beams", "draws", low=1, high=2**12)
        check_range(self, "history", low=0, high=2**12)
        check_range(self, "action_share", high=1, above=True)

    def cost(self, config: TtConfig) -> tuple[int, int]:
        """Forward passes and tokens in them of a step with a full history."""
        rows, rest = self.beams * self.draws, config.dims - config.observations
        forwards = 1 + self.horizon * (rest - 1) + (self.horizon - 1) * (config.observations + 1)
        tokens = self.history * config.dims + config.observations
        tokens += rows * self.horizon * (rest - 1)
        tokens += self.beams * (self.horizon - 1) * (config.observations + 1)
        return forwards, tokens


def plan(
    network: TtNetwork,
    bins: Discretizer,
    contexts: NDArray[np.int64],
    search: Search,
    generators: Sequence[np.random.Generator],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The first action of the best plan of each row, and what the plan is worth.

    All rows are searched at once; a row's plan does not depend on the others.

    Args:
        network: Predicts.
        bins: Of its dimensions.
        contexts: int64 ``[R, T]``, past transitions and the observation of each row.
        search: How far and how broadly.
        generators: Of each row's draws.

    Returns:
        The actions' tokens, int64 ``[R, actions]``, and the values, float64 ``[R]``.
    """
    config, count = network.config, len(contexts)
    tokens = torch.from_numpy(contexts).to(network.table.weight.device)
    transitions = tokens.shape[1] // config.dims + search.horizon
    cache = network.empty_cache(count, transitions)
    logits, position = network.step(tokens, 0, cache), tokens.shape[1]
    firsts: NDArray[np.int64] | None = None
    earned = np.zeros((count, 1))  # of each beam of each row
    for depth in range(search.horizon):
        copies = search.draws if firsts is not None else search.draws * search.beams
        beams = np.arange(earned.size).repeat(copies)
        cache, logits = _taken(cache, logits, beams)
        actions = []
        for _ in range(config.actions):
            chosen = _drawn(logits, generators, search.action_share)
            actions.append(chosen)
            logits = _step(network, chosen, position, cache)
            position += 1
        drawn = np.stack(actions, 1)
        firsts = drawn if firsts is None else firsts[beams]
        reward, reward_token = _expected(logits, bins, config.dims - 2)
        logits = _step(network, reward_token, position, cache)
        position += 1
        after, _ = _expected(logits, bins, config.dims - 1)
        before = earned.ravel()[beams]
        values = (before + config.discount**depth * after).reshape(count, -1)
        best = np.argsort(-values, axis=1, kind="stable")[:, : search.beams]
        values = np.take_along_axis(values, best, 1)
        kept = (best + np.arange(count)[:, None] * (len(beams) // count)).ravel()
        earned = (before + config.discount**depth * reward)[kept].reshape(best.shape)
        firsts = firsts[kept]
        if depth + 1 == search.horizon:
            break
        cache, _ = _taken(cache, logits, kept)
        chosen = np.zeros(len(kept), np.int64)  # a return, of which nothing is read
        for _ in range(config.observations):
            logits = _step(network, chosen, position, cache)
            position += 1
            chosen = logits.argmax(-1).cpu().numpy()
        logits = _step(network, chosen, position, cache)
        position += 1
    assert firsts is not None
    return firsts.reshape(count, -1, config.actions)[:, 0], values[:, 0]


def _step(network: TtNetwork, chosen: NDArray[np.int64], position: int, cache: RingCache) -> Tensor:
    tokens = torch.from_numpy(chosen)[:, None].to(cache.keys.device)
    return network.step(tokens, position, cache)


def _taken(cache: RingCache, logits: Tensor, beams: NDArray[np.int64]) -> tuple[RingCache, Tensor]:
    """Copies of some beams."""
    index = torch.from_numpy(beams).to(logits.device)
    return cache.part(index), logits[index]


def _drawn(
    logits: Tensor, generators: Sequence[np.random.Generator], share: float
) -> NDArray[np.int64]:
    """A bin for each beam of logits ``[B, V]``, among the likeliest that have ``share`` together.

    Each generator draws for as many beams.
    """
    numbers = np.concatenate([each.random(len(logits) // len(generators)) for each in generators])
    shares = logits.double().softmax(-1).cpu().numpy()
    order = np.argsort(-shares, axis=1, kind="stable")
    sums = np.take_along_axis(shares, order, 1).cumsum(1)
    kept = np.minimum((sums < share).sum(1), shares.shape[1] - 1)
    tops = np.take_along_axis(sums, kept[:, None], 1)[:, 0]
    places = (sums < (numbers * tops)[:, None]).sum(1)
    return np.take_along_axis(order, np.minimum(places, kept)[:, None], 1)[:, 0]


def _expected(
    logits: Tensor, bins: Discretizer, dimension: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The expected value of a dimension for each beam, and the likeliest bin."""
    shares = logits.double().softmax(-1).cpu().numpy()
    centres = bins.decode(np.arange(bins.bins)[:, None], dimension)[:, 0]
    return shares @ centres, shares.argmax(1)
