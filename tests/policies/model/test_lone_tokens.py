"""Tokens that see themselves alone: folded weights compute what the network does."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from gato_gym import PlanOptions, compile_plan
from policies import GatoPolicy
from policies.gato.multitask import MultiTaskPolicy
from policies.model.config import NetworkConfig, fitted
from policies.model.inputs.embedding import TEXT_PLACES
from policies.model.network import GatoNetwork, inference

CONFIG = NetworkConfig(
    width=48, layers=2, heads=3, head_size=64, feed_forward=64, window=60, prompt_tokens=4,
    text_rank=8, vector_hidden=40, vector_size=16, grid_channels=8, grid_groups=2,
    continuous_head="regression", tasks=("other", "test"),
)  # fmt: skip
OPTIONS = PlanOptions(vector_size=16, image_size=16, memory="none", actions="parallel")
STATE, ARM = spaces.Box(-3, 3, (5,), np.float32), spaces.Box(-1, 1, (3,), np.float32)
CAMERA = spaces.Dict(camera=spaces.Box(0, 255, (20, 20, 3), np.uint8), state=STATE)


def make_policy(
    space: spaces.Space[Any] = STATE, *, task: str | None = "test", **changes: Any
) -> GatoPolicy:
    torch.manual_seed(3)
    plan = compile_plan(space, ARM, OPTIONS)
    network = GatoNetwork(fitted(dataclasses.replace(CONFIG, **changes), [plan]))
    return GatoPolicy(network, plan, task=task)


def in_float64(policy: GatoPolicy, vectors: NDArray[np.float32]) -> torch.Tensor:
    """Actions' numbers by the network's modules, in float64."""
    network, row = copy.deepcopy(policy.network).double(), policy.decoder.task_row
    embedding, heads = network.embedding, network.action_heads
    inner = embedding.vector[0](torch.from_numpy(vectors).double())
    if row >= 0:
        inner = inner + embedding.task.vector.weight[row]  # type: ignore[union-attr]
    x = embedding.vector[2](F.gelu(inner)) + embedding.place.weight[TEXT_PLACES]
    if row >= 0:
        x = x + embedding.task.token.weight[row]  # type: ignore[union-attr]
    for block in network.backbone.blocks:
        x = x + block.attention_out(block.queries_keys_values(x)[:, -3 * 64 :])  # type: ignore[operator]
        x = x + block.feed(x)  # type: ignore[operator]
    owners, places = np.divmod(np.arange(3 * len(x)), 3)
    numbers = heads.numbers(
        network.backbone.norm(x), torch.from_numpy(owners), torch.from_numpy(places)
    )
    return numbers.view(-1, 3)


@pytest.mark.parametrize("task", ["test", "other", None])
def test_numbers_are_the_networks(task: str | None) -> None:
    policy = make_policy(task=task)
    vectors = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    lone = policy.decoder.lone_vectors
    assert lone is not None
    with torch.inference_mode():
        numbers = lone.numbers(vectors, np.full(5, policy.decoder.task_row))
        expected = in_float64(policy, vectors).float()
    torch.testing.assert_close(numbers, expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1


def test_weights_that_changed_are_read_again() -> None:
    policy = make_policy()
    seen = np.ones(5, np.float32)
    before, _ = policy.predict(seen, deterministic=True)
    for weight in policy.network.parameters():
        weight.mul_(1.5)
    inference(policy.network)
    again = GatoPolicy(policy.network, policy.plan, task="test")
    changed, _ = again.predict(seen, deterministic=True)
    assert not np.array_equal(before, changed)
    vectors = policy.plan.encode(seen).vectors
    with torch.inference_mode():
        expected = in_float64(again, vectors)[0].numpy()
    assert np.allclose(changed, np.clip(expected, -1, 1), atol=2 / 1024)


@pytest.mark.parametrize("image", [False, True])
def test_actions_of_1_to_70_rows_are_those_of_70(image: bool) -> None:
    policy = make_policy(CAMERA if image else STATE)
    assert (policy.decoder.lone_vectors is None) == image
    batch = batch_space(policy.observation_space, 70)
    batch.seed(0)
    seen = batch.sample()
    whole, _ = policy.predict(seen, deterministic=True)
    assert len(np.unique(whole)) > 20
    for rows in range(1, 70):
        some = {key: part[:rows] for key, part in seen.items()} if image else seen[:rows]
        assert np.array_equal(policy.predict(some, deterministic=True)[0], whole[:rows]), rows


def test_lone_rows_act_beside_rows_with_a_cache() -> None:
    first = make_policy(CAMERA)
    remembering = compile_plan(STATE, ARM, dataclasses.replace(OPTIONS, memory="observations"))
    views = [
        first,
        GatoPolicy(first.network, remembering, task="other"),
        GatoPolicy(first.network, compile_plan(STATE, ARM, OPTIONS), task="test"),
        GatoPolicy(first.network, compile_plan(STATE, ARM, OPTIONS), task="other"),
    ]
    assert [view.decoder.sees_alone for view in views] == [True, False, True, True]
    spaces_seen = [batch_space(view.observation_space, 3) for view in views]
    for seed, space in enumerate(spaces_seen):
        space.seed(seed)
    together, state, apart = MultiTaskPolicy(views), None, [None] * len(views)
    for _ in range(4):
        seen = [space.sample() for space in spaces_seen]
        actions, state = together.predict(seen, state, deterministic=True)
        for index, view in enumerate(views):
            expected, apart[index] = view.predict(seen[index], apart[index], deterministic=True)
            assert np.array_equal(actions[index], expected)
