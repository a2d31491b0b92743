"""The published loop does what it stands for, and what is timed is a full context."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.speed.jat import CHOSEN, PublishedLoop, against_the_published_loop, aged
from benchmarks.speed.predicting import SEEN
from policies.jat.config import preset
from policies.jat.network import JatNetwork
from policies.jat.policy import JatPolicy

SIZES = dataclasses.replace(preset("tiny"), window_size=6, max_position_embeddings=32)


def test_the_loop_is_the_policy_with_published_positions() -> None:
    """For longer than the window; tests/policies/jat has that policy against GPT-Neo's own code."""
    torch.manual_seed(0)
    network = JatNetwork(SIZES).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, std=0.5 if "wpe" in name else 0.1)
    loop = PublishedLoop(network, 6, window=12)
    policy = JatPolicy(network, SEEN, CHOSEN, window=12, positions="published")
    generator, state, reward = np.random.default_rng(0), None, 0.0
    for _ in range(20):
        observation = generator.normal(size=17)
        expected = loop.step(observation, reward)
        action, state = policy.predict(observation, state)
        np.testing.assert_allclose(action, expected.clip(-1, 1), atol=1e-4)
        assert np.abs(expected).min() < 1, "clipped actions would hide differences"
        reward = float(generator.normal())
        policy.observe_reward(state, 0, reward)
    assert loop.past[0][0].shape[2] == 12


def test_rows_of_all_ages_are_timed() -> None:
    """In a stride's steps each row's window gives way once: one row at a step."""
    policy = JatPolicy(JatNetwork(SIZES), SEEN, CHOSEN, window=32)
    player = aged(policy, policy.decoder.stride)
    gave_way = []
    for _ in range(policy.decoder.stride):
        before = player.state.lengths.copy()
        player.step()
        gave_way.append(int((player.state.lengths < before).sum()))
    assert gave_way == [1] * 8


def test_a_full_cache_is_read_whole() -> None:
    """The orders are those that steps from the episode's start on would have left."""
    for positions in ("exact", "published"):
        policy = JatPolicy(JatNetwork(SIZES), SEEN, CHOSEN, window=12, positions=positions)
        player, state = aged(policy, 1), None
        for _ in range((player.state.lengths[0] + 1) // 2):
            _, state = policy.predict(np.zeros(17), state)
        assert state.lengths.tolist() == player.state.lengths.tolist()
        assert torch.equal(state.cache.orders, player.state.cache.orders)


def test_ratios_at_both_batch_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        (each.name, each.limit)
        for each in against_the_published_loop(seconds=0.0, config=SIZES, window=8)
    ]
    assert names == [
        ("JAT: steps in float32, published positions, rows: 1", ""),
        ("JAT: steps in float32, published positions, rows: 64", ""),
        ("JAT: steps in bfloat16, published positions, rows: 1", "at least 1.5"),
        ("JAT: steps in bfloat16, published positions, rows: 64", ""),
        ("JAT: steps in int8, published positions, rows: 1", ""),
        ("JAT: steps in int8, published positions, rows: 64", "at least 30"),
        ("JAT: steps in bfloat16, exact positions, rows: 1", ""),
        ("JAT: steps in bfloat16, exact positions, rows: 64", ""),
        ("JAT: steps in int8, exact positions, rows: 1", ""),
        ("JAT: steps in int8, exact positions, rows: 64", ""),
    ]
