"""JAT's steps a second, against the published inference loop with the same weights.

* :class:`PublishedLoop` -- that loop, written plainly.
* :func:`against_the_published_loop` -- every comparison.

The task has 17 numbers to see and 6 to choose, as HalfCheetah's, and the context is full: of 256
tokens, as published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.speed.comparison import Comparison, compare
from benchmarks.speed.predicting import SEEN, Stepper
from policies.jat.config import JatConfig
from policies.jat.decoding import JatState, Positions
from policies.jat.network import JatNetwork
from policies.jat.policy import JatPolicy
from policies.jat.quantization import with_precision

CHOSEN = spaces.Box(-1.0, 1.0, (6,), np.float32)
WINDOW = 256


class PublishedLoop:
    """One episode: a batch of one, and keys and values that are joined and cut at every step.

    Each step encodes the last observation and action again, then the new observation and a
    placeholder of the action, and forgets the last two. A full cache is cut to the window, so that
    every new token then has the same positions.

    Args:
        network: The weights.
        action_size: Numbers of an action.
        window: Most tokens that are kept.
    """

    def __init__(self, network: JatNetwork, action_size: int, window: int = WINDOW) -> None:
        self.network, self.action_size, self.window = network, action_size, window
        self.tokens: list[Tensor] = []
        self.past: list[tuple[Tensor, Tensor]] = []

    @torch.inference_mode()
    def step(self, observation: NDArray[Any], reward: float = 0.0) -> NDArray[np.float32]:
        """The action after an observation; ``reward`` is that of the last action."""
        network, like = self.network, self.network.continuous_encoder.weight
        numbers = torch.tensor([*observation.tolist(), reward]).to(like)
        self.tokens.append(network.embed_numbers(numbers))
        placeholder = network.embed_numbers(torch.zeros(self.action_size).to(like))
        x = torch.stack([*self.tokens[-3:], placeholder])[None]
        before = self.past[0][0].shape[2] if self.past else 0
        x = x + network.transformer.wpe(torch.arange(before, before + x.shape[1]))
        layers = zip(network.transformer.h, network.config.layers, strict=True)
        for layer, (block, kind) in enumerate(layers):
            x = self._attend(layer, block, x, local=kind == "local")
        hidden = network.transformer.ln_f(x)[0, -2]
        action = network.predict_numbers(hidden)[: self.action_size]
        self.tokens.append(network.embed_numbers(action))
        self.past = [
            (keys[:, :, :-2][:, :, -self.window :], values[:, :, :-2][:, :, -self.window :])
            for keys, values in self.past
        ]
        return action.float().numpy()

    def _attend(self, layer: int, block: Any, x: Tensor, *, local: bool) -> Tensor:
        """A block of new tokens ``[1, T, D]``; joins their keys and values to the others."""
        parts = block.attention.projected(block.ln_1(x))
        queries, keys, values = (part.transpose(1, 2) for part in parts)
        if layer < len(self.past):
            keys = torch.cat([self.past[layer][0], keys], 2)
            values = torch.cat([self.past[layer][1], values], 2)
            self.past[layer] = (keys, values)
        else:
            self.past.append((keys, values))
        scores = queries.float() @ keys.float().transpose(2, 3)
        ends = torch.arange(keys.shape[2])[-x.shape[1] :, None]
        distance = ends - torch.arange(keys.shape[2])
        seen = distance >= 0
        if local:
            seen &= distance < self.network.config.window_size
        weights = scores.masked_fill(~seen, -math.inf).softmax(-1).to(values.dtype)
        finished: Tensor = block.finish(x, (weights @ values).transpose(1, 2))
        return finished


def filled(loop: PublishedLoop) -> PublishedLoop:
    """The loop after so many steps that its window is full."""
    for _ in range(loop.window // 2 + 2):
        loop.step(np.zeros(17))
    return loop


WAYS: tuple[tuple[Positions, str], ...] = (
    ("published", "float32"), ("published", "bfloat16"), ("published", "int8"),
    ("exact", "bfloat16"), ("exact", "int8"),
)  # fmt: skip
"""Positions and precisions; published positions compute what the loop does, up to rounding."""
LIMITS = {
    ("published", "bfloat16", 1): "at least 1.5",
    ("published", "int8", 64): "at least 30",
}


def against_the_published_loop(
    *, seconds: float, config: JatConfig | None = None, window: int = WINDOW
) -> Iterator[Comparison]:
    """Steps a second of :class:`JatPolicy` on a CPU over those of the loop, which is in float32.

    Args:
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
        config: The network's sizes; None takes the published ones, with random weights.
        window: Most tokens that are kept.
    """
    torch.manual_seed(0)
    network = JatNetwork(config or JatConfig()).eval().requires_grad_(False)
    loop = filled(PublishedLoop(network, 6, window))
    generator = np.random.default_rng(0)

    def published(count: int) -> None:
        for _ in range(count):
            loop.step(generator.normal(size=17))

    for positions, precision in WAYS:
        copy = JatNetwork(network.config)
        copy.load_state_dict(network.state_dict())
        policy = JatPolicy(
            with_precision(copy, precision), SEEN, CHOSEN, window=window, positions=positions
        )
        for rows in (1, 64):
            # after so many steps a full window has given way once; of many rows one does at each
            count = policy.decoder.stride if (positions, rows) == ("exact", 1) else 1
            yield compare(
                f"JAT: steps in {precision}, {positions} positions, rows: {rows}",
                ("the published loop", partial(published, count)),
                ("predict", partial(_step, aged(policy, rows), count)),
                items=count * rows,
                slow_items=count,
                seconds=seconds,
                rounds=3,
                limit=LIMITS.get((positions, precision, rows), ""),
            )


def _step(player: Stepper, count: int) -> None:
    for _ in range(count):
        player.step()


def aged(policy: JatPolicy, rows: int) -> Stepper:
    """Episodes whose windows are as full as they are on average, each at another place in it.

    What is in the cache is of no episode: a step costs the same whatever it is.
    """
    player = Stepper(policy, rows)
    state, decoder = player.state, policy.decoder
    assert isinstance(state, JatState)
    spread = np.arange(rows) * decoder.stride // rows
    state.lengths[:] = (1 + (decoder.positions == "published")) * decoder.window - 1 - 2 * spread
    newest = torch.from_numpy(state.lengths)[:, None] - 1
    slots = state.cache.slots
    orders = newest - (newest - torch.arange(slots)) % slots
    state.cache.orders[:, :slots] = orders.clamp(min=-1)
    return player
