"""A row has the same numbers in any batch, and none is computed for many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from gato_gym import PlanOptions, compile_plan
from policies import GatoPolicy
from policies.model.config import NetworkConfig, fitted
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork, inference
from policies.model.quantization import with_precision
from policies.model.row_blocks import (
    BLOCK,
    LARGER,
    BlockSizes,
    blocks_of,
    in_blocks,
    padded,
    rows_in_blocks,
)

CONFIG = NetworkConfig(
    width=48, layers=2, heads=3, head_size=64, feed_forward=64, window=60, prompt_tokens=4,
    text_rank=8, vector_hidden=40, vector_size=16, grid_channels=8, grid_groups=2,
)  # fmt: skip


def test_only_sizes_that_give_the_same_numbers_are_proven() -> None:
    def compute(rows: int) -> torch.Tensor:
        another_order = 1e-15 if rows < 8 or rows == 128 else 0.0
        return (torch.arange(rows, dtype=torch.float64) % BLOCK)[:, None] / 64 + another_order

    assert BlockSizes().proven(compute) == (8, 16, BLOCK)
    assert BlockSizes().proven(compute, LARGER) == (8, 16, BLOCK, 64, 256)


def test_each_number_of_threads_is_tried() -> None:
    tried: list[int] = []

    def compute(rows: int) -> torch.Tensor:
        tried.append(torch.get_num_threads())
        return torch.zeros(rows, 1)

    sizes, before = BlockSizes(), torch.get_num_threads()
    try:
        for threads in (1, 2, 1, 2):
            torch.set_num_threads(threads)
            sizes.proven(compute)
    finally:
        torch.set_num_threads(before)
    assert sorted(set(tried)) == [1, 2]
    assert len(tried) == 12  # six sizes each, once


@pytest.mark.parametrize(
    ("rows", "blocks"),
    [
        (1, (4,)),
        (4, (4,)),
        (5, (8,)),
        (17, (32,)),
        (32, (32,)),
        (33, (32, 4)),
        (70, (64, 8)),
        (289, (128, 128, 32, 4)),
    ],
)
def test_rows_are_padded_to_the_smallest_proven_blocks(rows: int, blocks: tuple[int, ...]) -> None:
    sizes = (4, 8, BLOCK, 64, 128)
    assert blocks_of(rows, sizes) == blocks
    assert rows_in_blocks(rows, sizes) == sum(blocks)
    x = torch.ones(rows, 2)
    whole = padded(x, sum(blocks))
    assert whole.shape == (sum(blocks), 2)
    assert float(whole.sum()) == 2 * rows
    seen: list[int] = []
    in_blocks(lambda block: seen.append(len(block)) or block, whole, blocks)  # type: ignore[func-returns-value]
    assert tuple(seen) == blocks


@pytest.mark.parametrize("ring", [16, 61, 62, 63])
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_hidden_vectors_of_1_to_70_rows_are_those_of_70(ring: int, tokens: int) -> None:
    torch.manual_seed(0)
    network = inference(GatoNetwork(CONFIG))
    x = torch.randn(3, 70, tokens, CONFIG.width)
    seen = torch.randn(2, CONFIG.layers, 70, CONFIG.heads, CONFIG.head_size, ring + 16)

    def hidden(first: int, rows: int) -> torch.Tensor:
        some, like = slice(first, first + rows), network.head.weight
        cache = RingCache.empty(CONFIG, rows=rows, ring=ring, pinned=4, like=like)
        slots = cache.positions.shape[1]
        cache.keys[:], cache.values[:] = seen[:, :, some, ..., :slots]
        cache.positions[:] = torch.arange(slots)  # all of them are in sight
        owners, steps = np.arange(rows).repeat(tokens), []
        for t, new in enumerate(x[:, some].flatten(1, 2)):
            positions = np.tile(slots + t * tokens + np.arange(tokens), rows)
            steps.append(network.step(new, owners, positions, cache).unflatten(0, (rows, tokens)))
        return torch.stack(steps)

    with torch.inference_mode():
        whole = hidden(0, 70)
        for rows in (*range(1, 34), 40, 63, 64, 65, 69):
            for first in {0, 70 - rows, (70 - rows) // 2}:  # wherever they are in memory
                same = torch.equal(hidden(first, rows), whole[:, first : first + rows])
                assert same, (first, rows)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tokens_whose_hidden_vectors_are_not_wanted_leave_the_same_cache(precision: str) -> None:
    torch.manual_seed(0)
    network = inference(GatoNetwork(CONFIG))
    if precision != "float32":
        with_precision(network, precision)
    x, caches = torch.randn(40, CONFIG.width), []
    for wanted in (True, False):
        cache = RingCache.empty(CONFIG, rows=8, ring=8, pinned=4, like=network.head.weight)
        owners, positions = np.arange(8).repeat(5), np.tile(np.arange(5), 8)
        with torch.inference_mode():
            network.step(x, owners, positions, cache, wanted=wanted)
        caches.append(cache)
    for name in ("keys", "values", "positions"):
        one, other = (getattr(cache, name) for cache in caches)
        assert torch.equal(one, other), name
    assert float(caches[1].keys[-1].abs().sum()) > 0


@pytest.mark.parametrize("head", ["bins", "regression"])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_actions_of_1_to_70_rows_are_those_of_70(head: str, side_by_side: bool) -> None:
    options = PlanOptions(
        vector_size=16, image_size=16, memory="none",
        actions="parallel" if side_by_side else "autoregressive",
    )  # fmt: skip
    space = spaces.Dict(
        camera=spaces.Box(0, 255, (20, 20, 3), np.uint8), state=spaces.Box(-1, 1, (5,), np.float32)
    )
    plan = compile_plan(space, spaces.Box(-1, 1, (3,), np.float32), options)
    config = NetworkConfig(**{**CONFIG.__dict__, "continuous_head": head})
    torch.manual_seed(1)
    policy = GatoPolicy(GatoNetwork(fitted(config, [plan])), plan)
    generator = np.random.default_rng(0)
    seen = {
        "camera": generator.integers(0, 256, (70, 20, 20, 3), np.uint8),
        "state": generator.uniform(-1, 1, (70, 5)).astype(np.float32),
    }
    whole, _ = policy.predict(seen, policy.seed_episodes(list(range(70))), np.ones(70, bool))
    assert len(np.unique(whole)) > 20
    for rows in (*range(1, 34), 48, 63, 64, 65, 69):
        some = {key: part[:rows] for key, part in seen.items()}
        state = policy.seed_episodes(list(range(rows)))
        actions, _ = policy.predict(some, state, np.ones(rows, bool))
        assert np.array_equal(actions, whole[:rows]), rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_that_sees_itself_alone_needs_no_slots(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    network = inference(GatoNetwork(CONFIG))
    if dtype == torch.bfloat16:
        with_precision(network, "bfloat16")
    x = torch.randn(70, CONFIG.width)

    def hidden(rows: int, ring: int) -> torch.Tensor:
        cache = RingCache.empty(CONFIG, rows=rows, ring=ring, pinned=0, like=network.head.weight)
        assert (cache.nbytes > 0) == (ring > 0)
        positions = np.full(rows, CONFIG.prompt_tokens)
        return network.step(x[:rows], np.arange(rows), positions, cache)

    with torch.inference_mode():
        for rows in range(1, 71):
            attended, alone = hidden(rows, 8), hidden(rows, 0)
            if dtype == torch.float32:
                assert torch.allclose(alone, attended, atol=1e-5), rows
                assert torch.equal(alone, hidden(70, 0)[:rows]), rows
            else:  # whose cache rounds values
                assert torch.allclose(alone.float(), attended.float(), atol=0.05), rows


def test_a_timestep_of_one_token_without_memory_has_no_cache() -> None:
    space, action = spaces.Box(-1, 1, (5,), np.float32), spaces.Box(-1, 1, (3,), np.float32)
    for memory, actions, slots in (
        ("none", "parallel", 0), ("none", "autoregressive", 8), ("observations", "parallel", 72),
    ):  # fmt: skip
        options = PlanOptions(vector_size=16, memory=memory, actions=actions)
        plan = compile_plan(space, action, options)
        policy = GatoPolicy(GatoNetwork(fitted(CONFIG, [plan])), plan)
        assert policy.new_state(2).cache.positions.shape == (2, slots), memory
