"""A row that begins an episode acts as if it had never played; the rows beside it do not notice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import INSTRUCTED, without_zeros

from gato_gym import Episode, PlanOptions, compile_plan
from policies import GatoPolicy
from policies.model.network import GatoNetwork

SPACE = spaces.Dict(
    image=spaces.Box(0, 10, (7, 7, 3), np.uint8), mission=spaces.Text(40, min_length=0)
)
BEFORE = ("go to the red ball", "open a blue door")
PLAYED, AFTER = 6, 5
"""Timesteps before row 0 begins its second episode, and after."""


def grid_policy(memory: str, *, prompted: bool) -> GatoPolicy:
    """A policy whose network reads a grid under a text."""
    torch.manual_seed(2)
    options = PlanOptions(grids=("image",), memory=memory, text_refresh=50, vector_size=16)
    plan = compile_plan(SPACE, spaces.Discrete(7), options)
    policy = GatoPolicy(without_zeros(GatoNetwork(INSTRUCTED)), plan)
    if not prompted:
        return policy
    images = np.random.default_rng(4).integers(0, 11, (4, 7, 7, 3), np.uint8)
    demonstration = Episode(
        task="test",
        observations={"image": images, "mission": [BEFORE[0]] * 4},
        actions=np.array([1, 5, 2]),
        rewards=np.zeros(3, np.float32),
        terminations=np.zeros(3, bool),
        truncations=np.zeros(3, bool),
    )
    return policy.with_prompt(demonstration)


def observed(rows: int, missions: tuple[str, ...], seed: int) -> dict[str, Any]:
    """One observation of each row, under these missions."""
    images = np.random.default_rng(seed).integers(0, 11, (rows, 7, 7, 3), np.uint8)
    return {"image": images, "mission": missions}


def logits_of(
    policy: GatoPolicy, observation: Any, state: Any, starts: Any = None
) -> tuple[torch.Tensor, Any]:
    """Logits of each row's action, float32 ``[B, 7]``, and the state after it."""
    logits: list[torch.Tensor] = []
    original = policy.network.symbol_logits

    def record(hidden: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        logits.append(original(hidden, start, stop))
        return logits[-1]

    policy.network.symbol_logits = record  # type: ignore[method-assign]
    try:
        _, state = policy.predict(observation, state, starts, deterministic=True)
    finally:
        policy.network.symbol_logits = original  # type: ignore[method-assign]
    return logits[-1][: len(observation["mission"])], state  # those before try sizes of blocks


def row_of(observation: dict[str, Any], row: int) -> dict[str, Any]:
    """A batch of this row alone."""
    return {"image": observation["image"][[row]], "mission": (observation["mission"][row],)}


@pytest.mark.parametrize("mission", [BEFORE[0], "pick up the key", ""], ids=["same", "new", "none"])
@pytest.mark.parametrize("prompted", [False, True], ids=["no prompt", "prompt"])
@pytest.mark.parametrize("memory", ["all", "observations", "none"])
def test_one_row_begins_an_episode(memory: str, prompted: bool, mission: str) -> None:
    policy = grid_policy(memory, prompted=prompted)
    seen = [observed(2, BEFORE, step) for step in range(PLAYED)]
    seen += [observed(2, (mission, BEFORE[1]), PLAYED + step) for step in range(AFTER)]
    state = fresh = kept = None
    for step, observation in enumerate(seen):
        starts = np.array([step == PLAYED, False])
        both, state = logits_of(policy, observation, state, starts)
        beside, kept = logits_of(policy, row_of(observation, 1), kept)
        torch.testing.assert_close(both[1], beside[0], atol=1e-5, rtol=0)
        if step >= PLAYED:
            alone, fresh = logits_of(policy, row_of(observation, 0), fresh)
            torch.testing.assert_close(both[0], alone[0], atol=1e-5, rtol=0)
            assert alone.std() > 0.01


def test_a_text_that_becomes_empty_is_forgotten_within_an_episode() -> None:
    policy = grid_policy("none", prompted=False)
    before, state = logits_of(policy, observed(1, (BEFORE[0],), 1), None)
    after, _ = logits_of(policy, observed(1, ("",), 1), state)
    fresh, _ = logits_of(policy, observed(1, ("",), 1), None)
    torch.testing.assert_close(after, fresh, atol=1e-5, rtol=0)
    assert (before - after).abs().max() > 0.01
