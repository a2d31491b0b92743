"""JAT in few bits on a CPU: compiled blocks are PyTorch's, and rows are each their own."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from policies import JatPolicy
from policies.jat import cpu_attention, cpu_kernels
from policies.jat.backbone import Backbone
from policies.jat.cache import TokenCache
from policies.jat.config import preset
from policies.jat.network import JatNetwork
from policies.jat.quantization import with_precision
from policies.model.compiled import memory_of
from policies.model.quantized_linear import QuantizedLinear

SIZES = dataclasses.replace(preset("tiny"), window_size=6)
"""Heads of 48 numbers."""
SMALL_HEADS = dataclasses.replace(SIZES, hidden_size=72, num_heads=6)
"""Heads of 12 numbers, no multiple of eight."""


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def pair(precision: str, sizes: Any = SIZES) -> tuple[JatNetwork, JatNetwork]:
    """A network in few bits, and one in float32 with the weights that the first one stands for."""
    torch.manual_seed(1)
    network = JatNetwork(sizes).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter, std=0.5 if "wpe" in name else 0.1)
        if "ln_" in name and "weight" in name:
            parameter.add_(1)
    narrow = with_precision(copy.deepcopy(network), precision)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            short = narrow.get_submodule(name)
            scale = short.scale[:, None] if isinstance(short, QuantizedLinear) else 1
            module.weight.copy_(short.weight.float() * scale)
    return narrow, network


def walk(backbone: Backbone, x: Tensor, counts: tuple[int, ...], wanted: int = 1) -> Tensor:
    """Hidden vectors of tokens ``[B, T, D]`` in steps; the last row has none in the first step."""
    cache = TokenCache.empty(backbone.config, rows=len(x), slots=12, like=backbone.wte.weight)
    orders, hidden = torch.zeros(len(x), 1, dtype=torch.long), []
    for number, count in enumerate(counts):
        now = orders + torch.arange(count)
        if number == 0:
            now[-1] = -1
        chosen = x[torch.arange(len(x))[:, None], now.clamp(min=0)].to(backbone.wte.weight.dtype)
        first = (now[:, 0] - 8).clamp(min=0)
        positions = now.clamp(min=0)
        hidden.append(backbone.step(chosen, now, positions, cache, first, wanted=wanted).float())
        orders = now[:, -1:] + 1
    return torch.cat(hidden, 1)


@pytest.mark.parametrize("sizes", [SIZES, SMALL_HEADS])
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_compiled_blocks_are_the_blocks(precision: str, sizes: Any, threads: int) -> None:
    """Rows of different ages, in steps of one to five tokens, round the ring."""
    narrow, wide = pair(precision, sizes)
    x, counts = torch.randn(3, 40, sizes.hidden_size), (3, 2, 1, 5, 3, 3, 3, 2, 4)
    like = narrow.transformer.wte.weight
    assert TokenCache.empty(sizes, rows=1, slots=4, like=like).compiled
    expected = walk(wide.transformer, x, counts)
    hidden = walk(narrow.transformer, x, counts)
    assert (hidden - expected).norm() < (
        0.02 if precision == "bfloat16" else 0.03
    ) * expected.norm()
    assert (hidden - expected).abs().max() < 0.3
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_what_is_not_asked_for_changes_nothing(precision: str) -> None:
    """Later tokens see the same keys and values, and the last token has the same vector."""
    narrow, _ = pair(precision)
    x = torch.randn(2, 20, SIZES.hidden_size)
    all_three = walk(narrow.transformer, x, (3, 3, 3), wanted=3)
    last = walk(narrow.transformer, x, (3, 3, 3), wanted=1)
    torch.testing.assert_close(last, all_three[:, 2::3], atol=0.02, rtol=0.02)
    assert walk(narrow.transformer, x, (3, 3), wanted=0).shape == (2, 0, SIZES.hidden_size)


def test_in_int8_a_rows_blocks_are_its_own() -> None:
    """Bit for bit in any batch: products of whole numbers are exact, and the rest is by rows."""
    narrow, _ = pair("int8")
    x = torch.randn(40, 20, SIZES.hidden_size)
    together = walk(narrow.transformer, x, (3, 2, 3, 3))
    for rows in ([3, 39], [0, 7, 8, 39], [20, 39]):  # the last row begins later
        assert torch.equal(walk(narrow.transformer, x[rows], (3, 2, 3, 3)), together[rows])


@pytest.mark.parametrize(("size", "slots", "asking"), [(64, 264, 3), (12, 20, 5), (48, 72, 1)])
def test_attention_is_the_softmax_over_what_is_seen(size: int, slots: int, asking: int) -> None:
    """Against float64, after the new tokens' keys and values are in the cache."""
    rows, heads, generator = 2, 3, torch.Generator().manual_seed(0)
    keys = torch.randn(rows, heads, size, slots, generator=generator).bfloat16()
    values = torch.randn(rows, heads, slots, size, generator=generator).bfloat16()
    q, k, v = (torch.randn(rows * asking, heads * size, generator=generator) for _ in range(3))
    places = torch.randperm(slots, generator=generator)[:asking].expand(rows, -1).contiguous()
    seen = torch.rand(rows, asking, slots, generator=generator) < 0.5
    seen[0, 0, 1:], seen[0, 0, 0] = False, True
    bias = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
    ones, zeros = np.ones(heads * size, np.float32), np.zeros(heads * size, np.float32)
    tokens = np.ones(rows * asking, np.float32), np.zeros(rows * asking, np.float32)
    products = [
        cpu_kernels.Product(part.numpy(), *tokens, ones, zeros, zeros) for part in (q, k, v)
    ]
    out = np.full((rows * asking, heads * size), np.nan, np.float32)
    cpu_attention.attend(
        *products, places.numpy(), bias.numpy(), memory_of(keys), memory_of(values), out
    )
    k_BHTK, v_BHTK, q_BHTK = (
        part.view(rows, asking, heads, size).transpose(1, 2) for part in (k, v, q)
    )
    for row in range(rows):
        assert torch.equal(keys[row, :, :, places[row]], k_BHTK[row].bfloat16().transpose(1, 2))
        assert torch.equal(values[row, :, places[row]], v_BHTK[row].bfloat16())
    scores = q_BHTK.double() @ keys.double() + bias[:, None].double()
    expected = (scores.softmax(-1) @ values.double()).transpose(1, 2).flatten(2).flatten(0, 1)
    np.testing.assert_allclose(out, expected.numpy(), atol=2e-5)


def test_fewer_bits_are_the_nearest_numbers() -> None:
    x = np.random.default_rng(0).normal(size=(4, 96)).astype(np.float32) * 3
    x[1], x[2, :5] = 0, 1000
    x[3] = np.abs(x[3])
    numbers, scale, shift = (
        np.empty((4, 96), np.int8),
        np.empty(4, np.float32),
        np.empty_like(x[:, 0]),
    )
    cpu_kernels._narrowed(x, numbers, scale, shift)
    assert numbers.min() >= -127
    assert (numbers.max(1)[[0, 2, 3]] == 127).all()
    restored = numbers * scale[:, None].astype(np.float64) + shift[:, None]
    half_a_step = (x.max(1) - x.min(1)) / 254 / 2
    assert (np.abs(restored - x) <= half_a_step[:, None] * 1.001).all()
    wide = torch.empty(4, 96, dtype=torch.bfloat16)
    cpu_kernels._narrowed(x, memory_of(wide), scale, shift)
    assert torch.equal(wide, torch.from_numpy(x).bfloat16())
    assert (scale == 1).all()
    assert (shift == 0).all()


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.01), ("int8", 0.02)])
@pytest.mark.parametrize(("positions", "window"), [("exact", 2), ("exact", 12), ("published", 12)])
def test_fewer_bits_choose_nearly_the_same(
    positions: Any, window: int, precision: str, bound: float, kernels: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The shipped network's actions, relative to float32's; both see the same past actions."""
    if not kernels:
        monkeypatch.setattr("policies.jat.cache.has_kernels", lambda: False)
    env = gym.make("Gato/mujoco-halfcheetah")
    chosen = []
    for name in ("float32", precision):
        policy = JatPolicy.load(
            "jat-mini", env=env, device="cpu", precision=name, positions=positions, window=window
        )
        generator, state, actions = np.random.default_rng(0), None, []
        for _ in range(16):
            _, state = policy.predict(generator.normal(size=(3, 17)), state)
            actions.append(state.actions.copy())
            state.actions[:] = generator.uniform(-1, 1, state.actions.shape)
        chosen.append(np.stack(actions))
    env.close()
    assert np.linalg.norm(chosen[1] - chosen[0]) < bound * np.linalg.norm(chosen[0])
    assert not np.array_equal(chosen[1], chosen[0])


def test_a_network_is_narrowed_once() -> None:
    network = with_precision(JatNetwork(SIZES), "int8")
    assert with_precision(network, "int8") is network
    with pytest.raises(ValueError, match="the network is in int8: load it again"):
        with_precision(network, "bfloat16")
