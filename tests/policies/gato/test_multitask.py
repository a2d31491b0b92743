"""Rows of different tasks and spaces in one predict act as they do alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import SMALL, TALKING, WORDS, talking_plan

from gato_gym import PlanOptions, compile_plan
from policies import GatoPolicy
from policies.gato.multitask import MultiTaskPolicy
from policies.gato.sampling import Sampler
from policies.model.network import GatoNetwork


@pytest.fixture(scope="module")
def views() -> list[GatoPolicy]:
    torch.manual_seed(1)
    network = GatoNetwork(SMALL)
    arm = spaces.Box(-1, 1, (5,))
    options = [PlanOptions(memory=memory, vector_size=16) for memory in ("none", "observations")]
    return [
        GatoPolicy(network, talking_plan(), seed=7),
        GatoPolicy(network, compile_plan(arm, spaces.Box(-2, 2, (3,)), options[0]), seed=7),
        GatoPolicy(network, compile_plan(arm, spaces.MultiDiscrete([3, 4]), options[1]), seed=7),
    ]


def observations(rows: tuple[int, int, int], step: int) -> list[Any]:
    """A batch for each view; rows is how many of each, 0 for a single observation."""
    generator = np.random.default_rng(step)
    state, *arms = (
        generator.uniform(-1, 1, (max(1, n), width)).astype(np.float32)
        for n, width in zip(rows, (3, 5, 5), strict=True)
    )
    words = tuple(WORDS[(row + step // 5) % 3] for row in range(len(state)))
    talk = {"state": state, "words": words}
    if not rows[0]:
        talk = {"state": state[0], "words": words[0]}
    return [talk, *(arm if n else arm[0] for arm, n in zip(arms, rows[1:], strict=True))]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("rows", [(2, 3, 1), (0, 0, 0), (33, 1, 0)])
def test_a_mixed_batch_acts_as_each_policy_alone(
    views: list[GatoPolicy], rows: tuple[int, int, int], deterministic: bool
) -> None:
    order = [1, 0, 2]  # the one in the middle has all its tokens first
    policy = MultiTaskPolicy([views[index] for index in order])
    together: Any = None
    apart: list[Any] = [None] * 3
    for step in range(14):
        seen = observations(rows, step)
        starts = [np.arange(max(1, n)) == step % 7 for n in rows]
        actions, together = policy.predict(
            [seen[index] for index in order],
            together,
            [starts[index] for index in order] if step else None,
            deterministic=deterministic,
        )
        for index, action in zip(order, actions, strict=True):
            start = starts[index] if step else None
            expected, apart[index] = views[index].predict(
                seen[index], apart[index], start, deterministic=deterministic
            )
            assert np.array_equal(action, expected)
            assert np.shape(action) == np.shape(expected)


def test_all_rows_share_each_forward(
    views: list[GatoPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    backbone = views[0].network.backbone
    original = backbone.step

    def step(*arguments: Any, **named: Any) -> torch.Tensor:
        counted.append(len(set(arguments[1].tolist())))
        return original(*arguments, **named)

    monkeypatch.setattr(backbone, "step", step)
    policy = MultiTaskPolicy(views)
    state = None
    for index in range(3):
        _, state = policy.predict(observations((2, 3, 1), index), state)
    # one action token of the first view, three of the second, two of the third
    assert counted == [6, 4, 3] * 3


def test_what_does_not_fit_is_refused(views: list[GatoPolicy]) -> None:
    with pytest.raises(ValueError, match="no policies"):
        MultiTaskPolicy([])
    other = GatoPolicy(GatoNetwork(SMALL), views[0].plan)
    with pytest.raises(ValueError, match="policy 1 has a network of its own"):
        MultiTaskPolicy([views[0], other])
    policy = MultiTaskPolicy(views)
    with pytest.raises(ValueError, match="2 observations for 3 policies"):
        policy.predict(observations((1, 1, 1), 0)[:2])
    _, state = policy.predict(observations((1, 1, 1), 0))
    with pytest.raises(ValueError, match="state is 1 rows and the observation has 2 rows"):
        policy.predict(observations((2, 1, 1), 0), state)
    with pytest.raises(ValueError, match="episode_start of policy 1 has 2 entries for 1"):
        policy.predict(observations((1, 1, 1), 0), state, [None, np.zeros(2, bool), None])


@pytest.mark.parametrize("deterministic", [True, False])
def test_rows_move_between_batches_without_noticing(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grids read under texts, which are emitted again after eight timesteps, and past actions."""
    torch.manual_seed(1)
    space = spaces.Dict(image=spaces.Box(0, 10, (7, 7, 3), np.uint8), words=spaces.Text(30))
    options = PlanOptions(grids=("image",), memory="all", text_refresh=8, vector_size=16)
    plan = compile_plan(space, spaces.Discrete(5), options)
    one = GatoPolicy(GatoNetwork(SMALL), plan, seed=7)
    other = one.with_prompt(None)
    images = np.random.default_rng(0).integers(0, 11, (10, 5, 7, 7, 3), np.uint8)
    logits: list[torch.Tensor] = []
    original = one.network.symbol_logits

    def recorded(*arguments: Any) -> torch.Tensor:
        logits.append(original(*arguments))
        return logits[-1]

    monkeypatch.setattr(one.network, "symbol_logits", recorded)

    def observed(step: int, rows: list[int]) -> dict[str, Any]:
        words = tuple(WORDS[(row + (step > row)) % 3] for row in rows)
        return {"image": images[step, rows], "words": words}

    def alone(row: int) -> list[tuple[int, torch.Tensor]]:
        chosen, state = [], None
        for step in range(10):
            action, state = one.predict(observed(step, [row]), state, None, deterministic)
            chosen.append((int(action[0]), logits[-1][0]))
        return chosen

    expected = [alone(row) for row in range(5)]
    mixed = MultiTaskPolicy([one, other])
    state = mixed.join([3, 2])
    held, first = [[0, 1, 2], [3, 4]], True
    for step in range(10):
        if step == 4:  # two rows go, the policies change places
            rows = [np.array([2, 0]), np.array([1])]
            parts = [part.take(kept) for part, kept in zip(state.parts, rows, strict=True)]
            mixed, held = MultiTaskPolicy([other, one]), [[4], [2, 0]]
            state = mixed.join(parts[::-1])
        batches = [observed(step, rows) for rows in held]
        starts = [np.full(len(rows), first) for rows in held]
        actions, state = mixed.predict(batches, state, starts, deterministic)
        first = False
        for place, (row, action) in enumerate(
            zip([*held[0], *held[1]], [*actions[0], *actions[1]], strict=True)
        ):
            assert action == expected[row][step][0]
            torch.testing.assert_close(logits[-1][place], expected[row][step][1], atol=1e-5, rtol=0)


def test_views_of_one_layout_are_one_batch(views: list[GatoPolicy]) -> None:
    assert views[1].acts_like(views[1].with_prompt(None))
    assert not views[1].acts_like(views[2])
    assert not views[1].acts_like(views[0])
    plan, network = views[0].plan, views[0].network
    later = dataclasses.replace(plan.options, text_refresh=9)
    for different in (
        GatoPolicy(network, compile_plan(TALKING, spaces.Discrete(5), later)),
        GatoPolicy(network, compile_plan(TALKING, spaces.Discrete(4), plan.options)),
        GatoPolicy(network, plan, sampler=Sampler(temperature=2.0)),
    ):
        assert not views[0].acts_like(different)
    with pytest.raises(ValueError, match="expected caches of one size"):
        MultiTaskPolicy(views[:2]).join([1, 1])
