"""What the policy computes step by step with its cache is what training computes at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from recorded import make_shard
from small import without_zeros

from gato_gym import Episode, PlanOptions, compile_plan
from policies import GatoPolicy
from policies.model.config import NetworkConfig, fitted
from policies.model.network import GatoNetwork, PackedBatch, Targets
from policies.training.data.collator import BatchBuilder, Document
from policies.training.data.packing import Mixture, Packer

CONFIG = NetworkConfig(
    width=32, layers=3, heads=2, head_size=16, feed_forward=32, window=7, prompt_tokens=24,
    text_rank=8, vector_hidden=16, grid_channels=8, grid_groups=2, grid_words=2, vector_size=16,
)  # fmt: skip

GRID = spaces.Dict(
    direction=spaces.Discrete(4),
    image=spaces.Box(0, 10, (7, 7, 3), np.uint8),
    mission=spaces.Text(40),
)
MIXED_ACTION = spaces.Dict(push=spaces.Box(-2, 3, (2,), np.float32), tool=spaces.Discrete(3))
STEPS = 80
"""Ten windows and more of one token each."""
MISSIONS = ("go to the red ball", "open a blue door", "", "pick up the key")

CASES = {
    "grid and text, actions hidden": (GRID, spaces.Discrete(7), PlanOptions(
        grids=("image",), memory="observations", text_refresh=9, vector_size=16)),
    "grid and text, all kept": (GRID, MIXED_ACTION, PlanOptions(
        grids=("image",), memory="all", text="always", vector_size=16)),
    "vector, nothing kept": (spaces.Box(-9, 9, (5,)), MIXED_ACTION, PlanOptions(
        memory="none", vector_size=16)),
    "vectors, actions hidden": (spaces.Box(-9, 9, (40,)), MIXED_ACTION, PlanOptions(
        memory="observations", vector_size=16)),
    "paper": (spaces.Box(-9, 9, (2,)), MIXED_ACTION, PlanOptions(layout="paper", vector_size=16)),
    "image": (spaces.Box(0, 255, (20, 33, 3), np.uint8), spaces.Discrete(3), PlanOptions(
        vector_size=16)),
    "actions side by side, nothing kept": (spaces.Box(-9, 9, (5,)), MIXED_ACTION, PlanOptions(
        actions="parallel", memory="none", vector_size=16)),
    "actions side by side, grid and text": (GRID, MIXED_ACTION, PlanOptions(
        grids=("image",), actions="parallel", memory="observations", text_refresh=9,
        vector_size=16)),
    "whole image": (spaces.Box(0, 255, (5, 40, 40), np.uint8), spaces.Discrete(3), PlanOptions(
        image_size=20, stacks=("",), actions="parallel", memory="observations", vector_size=16)),
}  # fmt: skip


def observations(space: gym.Space[Any], count: int) -> list[Any]:
    """Random members of a space; instructions change rarely."""
    space.seed(5)
    members = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        for step, observation in enumerate(members):
            observation["mission"] = MISSIONS[step // 16 % len(MISSIONS)]
    return members


class Bare(gym.Env[Any, Any]):
    """Two spaces."""

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space


def played(policy: GatoPolicy, seen: list[Any]) -> tuple[list[torch.Tensor], np.ndarray]:
    """Logits over the whole symbol range of each action token, and action ids of each step."""
    logits: list[torch.Tensor] = []
    policy.predict(seen[0])  # tries the sizes of blocks
    (sizes,) = policy.decoder.head_sizes._proven.values()
    original = policy.network.symbol_logits

    def record(hidden: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        side_by_side = len(hidden) // sizes[0]  # the block's other rows are padding
        logits.extend(original(hidden, 32000, 34049)[:side_by_side])
        return original(hidden, start, stop)

    policy.network.symbol_logits = record  # type: ignore[method-assign]
    state, ids = None, []
    for observation in seen:
        action, state = policy.predict(observation, state, deterministic=True)
        assert policy.action_space.contains(action)
        ids.append(policy.plan.encode_action(action))
    policy.network.symbol_logits = original  # type: ignore[method-assign]
    return logits, np.stack(ids)


@pytest.mark.parametrize("shown", [None, 10, 32], ids=["no prompt", "prompt", "textless prompt"])
@pytest.mark.parametrize("case", CASES)
def test_cached_logits_equal_the_full_forward(case: str, shown: int | None) -> None:
    prompted, first = shown is not None, shown or 0
    observation_space, action_space, options = CASES[case]
    torch.manual_seed(0)
    plan = compile_plan(observation_space, action_space, options)
    config = fitted(dataclasses.replace(CONFIG, tasks=("other", "test")), [plan])
    network = without_zeros(GatoNetwork(config))
    policy = GatoPolicy(network, plan, task="test")
    seen = observations(observation_space, STEPS)
    action_space.seed(3)
    example = [action_space.sample() for _ in range(12)]
    demonstration = Episode(
        task="test",
        observations=stacked(observation_space, seen[first : first + 13]),
        actions=stacked(action_space, example),
        rewards=np.zeros(12, np.float32),
        terminations=np.zeros(12, bool),
        truncations=np.zeros(12, bool),
    )
    if prompted:
        policy = policy.with_prompt(demonstration, cut="end")
    logits, ids = played(policy, seen)
    shards = make_shard(
        plan,
        [
            (seen, ids),
            (seen[first : first + 12], np.stack([plan.encode_action(a) for a in example])),
        ],
    )
    mixture = Mixture({"test": 1.0}, prompt_share={"test": float(prompted)}, prompt_end=1.0)
    packer = Packer({"test": shards}, mixture, config, rows=1, length=4000, seed=0)
    batch = whole_episode(packer, len(seen), prompted=prompted)
    with torch.no_grad():
        hidden = network(batch).flatten(0, 1)[batch.targets.slots]
        owners = torch.arange(len(hidden))
        vectors = network.action_heads.at_places(hidden, owners, batch.targets.places)
        full = network.symbol_logits(vectors, 32000, 34049)
    assert len(full) == len(logits) == STEPS * plan.num_actions
    torch.testing.assert_close(torch.stack(logits), full, atol=1e-5, rtol=0)
    assert full.std() > 0.01
    assert (batch.tokens.tasks is None) == prompted  # a prompt says what is played


def test_a_long_text_is_cut_as_in_training() -> None:
    space = spaces.Dict(state=spaces.Box(-1, 1, (3,)), words=spaces.Text(3000))
    plan = compile_plan(space, spaces.Discrete(3), PlanOptions(vector_size=16))
    observation = {"state": np.zeros(3, np.float32), "words": "go left " * 300}
    text = plan.encode(observation).text
    assert len(text) > 256
    action, state = GatoPolicy(GatoNetwork(CONFIG), plan).predict(observation)
    shard = make_shard(plan, [([observation], plan.encode_action(action)[None])])
    assert np.array_equal(shard.text(0), text[:256])
    assert state.next_positions.tolist() == [CONFIG.prompt_tokens + 256 + 1]


def whole_episode(packer: Packer, steps: int, *, prompted: bool) -> PackedBatch:
    """Episode 0 of the packer's only shard as one document, after a prompt from episode 1."""
    shard = packer.shards["test"]
    parts = []
    if prompted:
        parts.append(packer._prompt(shard, 1, np.random.default_rng(0)))
    live = packer._live(shard, np.arange(steps), CONFIG.prompt_tokens, 4000)
    assert live is not None
    builder = BatchBuilder(packer.spec, 1)
    builder.add(Document(shard, [*parts, live], np.asarray(live[1].actions)), 0, 0, 0)
    batch = builder.finish()
    assert isinstance(batch.targets, Targets)
    return batch


def stacked(space: gym.Space[Any], parts: list[Any]) -> Any:
    """Members of a space, stacked along time; text as a list."""
    if isinstance(space, spaces.Dict):
        return {key: stacked(sub, [p[key] for p in parts]) for key, sub in space.spaces.items()}
    return (
        list(parts) if isinstance(space, spaces.Text) else np.stack([np.asarray(p) for p in parts])
    )
