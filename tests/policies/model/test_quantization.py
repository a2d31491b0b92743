"""Weights of fewer bits, devices, and nothing that makes a device wait."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import SMALL, STATE, WORDS, state_plan, talking_plan
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gato_gym import Episode, PlanOptions, compile_plan
from policies import GatoPolicy
from policies.model import quantized_linear
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork, count_parameters, inference
from policies.model.quantization import choose_precision, with_precision
from policies.model.quantized_linear import QuantizedLinear


def network(precision: str = "float32") -> GatoNetwork:
    torch.manual_seed(1)
    return with_precision(inference(GatoNetwork(SMALL)), precision)


def test_int8_is_the_map_to_half_a_step() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 32, bias=False)
    short = QuantizedLinear(linear, torch.int8)
    step = linear.weight.abs().amax(1) / 127
    assert short.weight.dtype == torch.int8
    assert short.weight.abs().max() == 127
    restored = short.weight.float() * step[:, None]
    assert ((restored - linear.weight).abs() <= step[:, None] / 2 + 1e-6).all()
    x = torch.randn(5, 64).to(torch.bfloat16)
    expected = x.double() @ restored.double().T
    assert torch.allclose(short(x).double(), expected, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_maps_keep_their_bias(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 32)
    x = torch.randn(5, 64).to(torch.bfloat16)
    narrow = QuantizedLinear(linear, dtype)(x)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), linear(x.float()), atol=0.03, rtol=0.02)


@pytest.mark.parametrize("way", ["PyTorch's", "none", "inexact", "refused"])
def test_products_of_whole_numbers_are_exact(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PyTorch's product, and where it has none, adds in too few bits, or refuses to."""

    def inexact(x: Tensor, y: Tensor) -> Tensor:
        return (x.int() @ y.int()).clamp(-(2**15), 2**15 - 1)

    def refused(x: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("not implemented")

    if way == "none":
        monkeypatch.delattr(torch, "_int_mm")
    elif way != "PyTorch's":
        monkeypatch.setattr(torch, "_int_mm", inexact if way == "inexact" else refused)
    quantized_linear._has_whole_product.cache_clear()
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randint(-127, 128, (rows, 768), dtype=torch.int8, generator=generator)
        for rows in (3, 40)
    )
    x[0] = y[0] = 127
    product = quantized_linear.whole_product(x, y)
    quantized_linear._has_whole_product.cache_clear()
    assert product.dtype == torch.int32
    assert product[0, 0] == 127 * 127 * 768
    assert torch.equal(product, x.int() @ y.int().T)


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Numba is not installed."""
    monkeypatch.setattr("policies.model.kv_cache.has_kernels", lambda: False)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_compiled_blocks_are_the_blocks(precision: str, threads: int) -> None:
    """Tokens of several rows, in several steps round the ring, against PyTorch's block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(2)
    config = dataclasses.replace(SMALL, window=6)
    narrow = with_precision(inference(GatoNetwork(config)), precision)
    wide = inference(GatoNetwork(config))
    for name, module in wide.backbone.named_modules():
        if isinstance(module, nn.Linear):
            short = narrow.backbone.get_submodule(name)
            assert isinstance(short, QuantizedLinear)
            module.weight.copy_(short.weight.float() * short.scale[:, None])
    like = narrow.head.weight
    assert RingCache.empty(config, rows=3, ring=9, pinned=2, like=like).keys.dtype == like.dtype
    caches = [
        RingCache.empty(config, rows=3, ring=9, pinned=2, like=head.weight)
        for head in (narrow.head, wide.head)
    ]
    try:
        for first, count in ((0, 2), (16, 3), (19, 1), (20, 2), (22, 1), (23, 3)):
            rows = np.repeat([0, 2] if first == 19 else [0, 1, 2], count)
            positions = first + np.arange(len(rows)) % count
            x = torch.randn(len(rows), config.width)
            hidden = [
                n.backbone.step(x.to(n.head.weight.dtype), rows, positions, cache).float()
                for n, cache in zip((narrow, wide), caches, strict=True)
            ]
            assert (hidden[0] - hidden[1]).abs().max() < 0.05
            assert (hidden[0] - hidden[1]).abs().mean() < 0.01
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_the_compiled_exponential_is_exact_to_its_last_bits() -> None:
    from policies.model.compiled import exp

    x = np.linspace(-87, 0, 3001).astype(np.float32)
    exponentials = np.array([exp(number) for number in x])
    np.testing.assert_allclose(exponentials, np.exp(x.astype(np.float64)), rtol=3e-7)


def test_sizes_that_do_not_fit_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    like = torch.zeros(0, dtype=torch.bfloat16)
    config = dataclasses.replace(SMALL, head_size=6)
    assert RingCache.empty(config, rows=1, ring=4, pinned=0, like=like).keys.dtype == torch.float32
    assert RingCache.empty(SMALL, rows=1, ring=4, pinned=0, like=like).keys.dtype == like.dtype
    without_kernels(monkeypatch)
    assert RingCache.empty(SMALL, rows=1, ring=4, pinned=0, like=like).keys.dtype == torch.float32


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.02), ("int8", 0.03)])
def test_fewer_bits_say_nearly_the_same(
    precision: str, bound: float, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        without_kernels(monkeypatch)
    exact, short = (GatoPolicy(network(p), state_plan()) for p in ("float32", precision))
    assert short.network.precision == precision
    assert count_parameters(short.network) == count_parameters(exact.network)
    x = np.random.default_rng(0).uniform(-1, 1, (40, 3)).astype(np.float32)
    chosen_from = []
    for policy in (exact, short):
        logits: list[torch.Tensor] = []
        original = policy.network.symbol_logits

        def kept(*arguments: Any, logits: Any = logits, original: Any = original) -> torch.Tensor:
            logits.append(original(*arguments))
            return logits[-1]

        policy.network.symbol_logits = kept  # type: ignore[method-assign]
        policy.predict(x, deterministic=True)
        chosen_from.append(logits[-4])  # two actions of two blocks; those before try their sizes
    spread = chosen_from[0].std()
    assert 0 < (chosen_from[0] - chosen_from[1]).abs().max() < bound * 10 * spread
    assert (chosen_from[0] - chosen_from[1]).abs().mean() < bound * spread


def test_there_is_no_way_back() -> None:
    short = network("int8")
    with pytest.raises(ValueError, match="network is in int8: load it again"):
        with_precision(short, "float32")
    assert with_precision(short, "int8") is short


def test_a_precision_is_chosen_when_loaded(tmp_path: Path) -> None:
    GatoPolicy(network(), state_plan()).save(tmp_path / "saved")
    loaded = GatoPolicy.load(tmp_path / "saved", precision="int8", device="cpu")
    assert "in int8 on cpu" in loaded.describe()
    with pytest.raises(ValueError, match="this policy is in int8, and a checkpoint holds"):
        loaded.save(tmp_path / "again")
    assert GatoPolicy.load(tmp_path / "saved", device="cpu").network.precision == "float32"
    with pytest.raises(ValueError, match=r"precision is 'int4': expected one of"):
        GatoPolicy.load(tmp_path / "saved", precision="int4")
    assert choose_precision("auto", torch.device("cuda")) == "bfloat16"


def test_a_device_that_is_not_there_is_refused() -> None:
    policy = GatoPolicy(network(), state_plan())
    assert policy.to("cpu") is policy
    with pytest.raises(ValueError, match=r"device 'quantum' cannot be used .* expected 'auto'"):
        policy.to("quantum")


class NoWaiting(TorchDispatchMode):
    """Refuses what makes a program wait for its device: sizes and choices that depend on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal", "is_nonzero")

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        name = function.name().removeprefix("aten::").split(".")[0]
        assert not name.startswith(self.WAITS), f"{name} waits for the device"
        if name in ("index", "index_put_"):
            indices = [index for index in arguments[1] if index is not None]
            assert all(index.dtype != torch.bool for index in indices), f"{name} by a mask waits"
        return function(*arguments, **(options or {}))


def test_what_waits_is_caught() -> None:
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        torch.arange(3)[torch.tensor([True, False, True])]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("memory", ["all", "observations", "none"])
def test_nothing_inside_an_action_waits_for_the_device(memory: str, deterministic: bool) -> None:
    action_space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(3))
    options = PlanOptions(memory=memory, vector_size=16, text_refresh=2)
    plan = compile_plan(talking_plan().observation_space, action_space, options)
    image = spaces.Dict(state=STATE, view=spaces.Box(0, 255, (16, 20, 3), np.uint8))
    plans = [plan, compile_plan(image, action_space, options)]
    shared = network()
    generator = np.random.default_rng(0)
    for plan in plans:
        policy = GatoPolicy(shared, plan)
        state: Any = None
        for step in range(6):
            observation: Any = {"state": generator.uniform(-1, 1, (3, 3)).astype(np.float32)}
            if plan.has_text:
                observation["words"] = WORDS
            else:
                observation["view"] = generator.integers(0, 256, (3, 16, 20, 3)).astype(np.uint8)
            starts = np.arange(3) == step % 3
            if not step:  # tries the sizes of a CPU's blocks
                policy.predict(observation)
            with NoWaiting():
                _, state = policy.predict(observation, state, starts, deterministic=deterministic)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("prompted", [False, True])
def test_everything_is_where_the_weights_are(
    precision: str, prompted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device without memory everything fails that needs the host, or mixes it with it."""
    image = spaces.Dict(
        state=STATE, words=spaces.Text(30), view=spaces.Box(0, 255, (16, 20, 3), np.uint8),
        grid=spaces.Box(0, 10, (7, 7, 3), np.uint8),
    )  # fmt: skip
    action_space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(3))
    options = PlanOptions(grids=("grid",), vector_size=16)
    plan = compile_plan(image, action_space, options)
    image.seed(0)
    seen = [image.sample() for _ in range(3)]
    observation: Any = {
        key: [s[key] for s in seen] if key == "words" else np.stack([s[key] for s in seen])
        for key in image.spaces
    }
    policy = GatoPolicy(network(precision), plan)
    if prompted:
        action_space.seed(0)
        chosen = [action_space.sample() for _ in range(2)]
        actions = {key: np.stack([np.asarray(a[key]) for a in chosen]) for key in "ab"}
        nothing = np.zeros(2, np.float32)
        episode = Episode("test", observation, actions, nothing, nothing > 0, nothing > 0)
        policy = policy.with_prompt(episode, cut="end")
    policy = policy.to("meta")
    assert policy.device.type == "meta"
    forwards = []
    original = policy.network.backbone.step

    def counted(*arguments: Any, **named: Any) -> torch.Tensor:
        forwards.append(original(*arguments, **named))
        return forwards[-1]

    monkeypatch.setattr(policy.network.backbone, "step", counted)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        policy.predict(observation)
    assert len(forwards) == plan.num_actions
