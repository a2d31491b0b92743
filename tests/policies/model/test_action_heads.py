"""Action tokens from hidden vectors: one after another, or side by side."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small import SMALL

from policies.model.action_heads import ActionHeads

SIDE_BY_SIDE = dataclasses.replace(SMALL, action_places=3, continuous_head="regression")


def test_the_usual_network_has_no_weights_here() -> None:
    assert not list(ActionHeads(SMALL).parameters())


def test_a_token_that_the_one_before_predicts_keeps_its_vector() -> None:
    torch.manual_seed(0)
    heads, hidden = ActionHeads(SIDE_BY_SIDE), torch.randn(2, SMALL.width)
    owners, places = torch.tensor([1, 0, 1]), torch.tensor([-1, 2, -1])
    vectors = heads.at_places(hidden, owners, places)
    assert torch.equal(vectors[[0, 2]], hidden[[1, 1]])
    assert not torch.equal(vectors[1], hidden[0])


def test_positions_of_one_timestep_differ_and_rows_do_not_mix() -> None:
    torch.manual_seed(0)
    heads, hidden = ActionHeads(SIDE_BY_SIDE), torch.randn(4, SMALL.width)
    owners, places = torch.arange(4).repeat_interleave(3), torch.arange(3).repeat(4)
    numbers = heads.numbers(hidden, owners, places)
    alone = torch.stack([
        heads.numbers(hidden[[row]], torch.tensor([0]), torch.tensor([place]))[0]
        for row in range(4) for place in range(3)
    ])  # fmt: skip
    torch.testing.assert_close(numbers, alone)
    assert (numbers.view(4, 3).std(1) > 1e-3).all()


def test_a_number_is_what_its_weights_say() -> None:
    torch.manual_seed(0)
    heads, hidden = ActionHeads(SIDE_BY_SIDE), torch.randn(1, SMALL.width)
    assert heads.number is not None
    assert heads.place is not None
    inner = torch.nn.functional.gelu(heads.expand(hidden)[0] + heads.place.weight[2])
    by_hand = heads.number(hidden)[0, 0] + inner @ heads.number_at.weight[2]
    (number,) = heads.numbers(hidden, torch.tensor([0]), torch.tensor([2]))
    assert float(number.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-5)
