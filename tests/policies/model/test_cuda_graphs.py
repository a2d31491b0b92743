"""Compiled and recorded steps: the same numbers as without, and only for what comes again."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from policies.gato.policy import GatoPolicy
from policies.model import cuda_graphs
from policies.model import transformer as backbone
from policies.model.block import Block
from policies.model.config import preset
from policies.model.cuda_graphs import CudaGraphCache, Work
from policies.model.kv_cache import RingCache
from policies.model.transformer import Backbone

CONFIG = dataclasses.replace(preset("tiny"), window=7)
TOKENS = [[2, 2, 2], [1, 1, 1], [1, 1, 1], [2, 1, 3]] * 5
"""New tokens of each of three rows, step by step: twenty steps go round a ring of 11 slots."""


class Recorder(TorchDispatchMode):
    """Notes every operation with the tensors it had, as a CUDA graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        assert not isinstance(result, int | float | bool), f"{func} waits for the device"
        self.noted.append((func, args, kwargs or {}, result))
        return result

    def again(self) -> None:
        """The same operations on the same memory, whatever is in it now."""
        for func, args, kwargs, result in self.noted:
            new = func(*args, **kwargs)
            if isinstance(result, Tensor) and new.data_ptr() != result.data_ptr():
                result.copy_(new)


def record_here(work: Work, first: Tensor, second: Tensor) -> Work:
    held = first.clone(), second.clone()
    with Recorder() as recorder:
        result = work(*held)

    def play(first: Tensor, second: Tensor) -> Tensor:
        held[0].copy_(first)
        held[1].copy_(second)
        recorder.again()
        return result.clone()

    return play


@torch.inference_mode()
def steps_of(network: Backbone) -> tuple[list[Tensor], RingCache]:
    generator = np.random.default_rng(0)
    like = next(network.parameters())
    cache = RingCache.empty(CONFIG, rows=3, ring=11, pinned=0, like=like)
    following = np.full(3, CONFIG.prompt_tokens)
    hidden = []
    for counts in TOKENS:
        rows = np.repeat(np.arange(3), counts)
        positions = np.concatenate(
            [start + np.arange(count) for start, count in zip(following, counts, strict=True)]
        )
        following += counts
        x_ND = torch.from_numpy(generator.normal(size=(len(rows), CONFIG.width))).float()
        hidden.append(network.step(x_ND, rows, positions, cache))
    return hidden, cache


@pytest.fixture
def network() -> Backbone:
    torch.manual_seed(0)
    return Backbone(CONFIG).eval()


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """What is recorded, here where there is no GPU."""
    recorded: list[Work] = []

    def record(work: Work, first: Tensor, second: Tensor) -> Work:
        recorded.append(work)
        return record_here(work, first, second)

    monkeypatch.setattr(cuda_graphs, "recordable", lambda _: True)
    monkeypatch.setattr(cuda_graphs, "record", record)
    return recorded


def test_recorded_steps_are_those_that_are_not(
    network: Backbone, recordings: list[Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, before = steps_of(network)
    assert not recordings
    network.compiled = True
    monkeypatch.setattr(backbone, "compiled_step", lambda *_: Block.step)
    recorded, after = steps_of(network)
    assert len(recordings) == 3, "one for each pattern of rows"
    for one, other in zip(plain, recorded, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert torch.equal(before.keys, after.keys)
    assert torch.equal(before.positions, after.positions)


def test_a_gpu_records_steps_that_are_not_compiled(
    network: Backbone, recordings: list[Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = steps_of(network)
    monkeypatch.setattr(backbone, "recordable", lambda _: True)
    recorded, _ = steps_of(network)
    assert len(recordings) == 3, "one for each pattern of rows"
    for one, other in zip(plain, recorded, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    network.recorded = False
    steps_of(network)
    assert len(recordings) == 3


def test_each_shape_is_compiled_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    backbone.compiled_step.cache_clear()
    one, again, other = (
        backbone.compiled_step((rows, 8), (2, 8), torch.float32, torch.device("cpu"))
        for rows in (1, 1, 2)
    )
    backbone.compiled_step.cache_clear()
    assert one is again is not other
    codes = [step.__code__ for step in (one, other, Block.step)]  # type: ignore[attr-defined]
    assert len({id(code) for code in codes}) == 3
    assert codes[0] == codes[1] == codes[2]


def test_compiled_steps_are_those_that_are_not(
    network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        traced.append(len(inputs))
        return graph.forward

    whole = torch.compile(Block.step, backend=backend, fullgraph=True, dynamic=False)
    plain, _ = steps_of(network)
    network.compiled = True
    monkeypatch.setattr(backbone, "compiled_step", lambda *_: whole)
    compiled, _ = steps_of(network)
    assert len(traced) == 3, "once for each pattern of rows, however many blocks"
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_what_comes_once_is_done_as_it_comes() -> None:
    held, one, done = CudaGraphCache(most=1), torch.ones(1), list[str]()

    def named(name: str) -> Work:
        def work(first: Tensor, _: Tensor) -> Tensor:
            done.append(name)
            return first

        return work

    for key in "aabab":
        held.play(key, named("plain"), named("compiled"), one, one)
    assert done == ["plain", "compiled", "plain", "compiled", "plain"]


def test_a_policy_acts_as_it_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    env, used = gym.make("Gato/babyai-open"), list[int]()

    def counted(block: Block, x_ND: Tensor, *others: Any) -> Tensor:
        used.append(len(x_ND))
        return block.step(x_ND, *others)

    monkeypatch.setattr(backbone, "compiled_step", lambda *_: counted)
    actions = []
    for compiled in (False, True):
        policy = GatoPolicy.load("gato-mini", env=env, compiled=compiled)
        observation, _ = env.reset(seed=0)
        state, chosen = None, []
        for _ in range(8):
            action, state = policy.predict(observation, state, deterministic=True)
            observation, *_ = env.step(action)
            chosen.append(int(action))
        actions.append(chosen)
        assert bool(used) == compiled
    assert actions[0] == actions[1]


def test_a_copy_records_for_itself(network: Backbone) -> None:
    _, cache = steps_of(network)
    cache.graphs._met.add("a key")
    for copied in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache)), cache.part(slice(2))):
        assert not copied.graphs._met
        assert copied.graphs is not cache.graphs
