"""Weights of a network in a larger one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small import INSTRUCTED, SMALL, state_plan

from gato_gym import PlanOptions, compile_plan
from policies.model.config import NetworkConfig
from policies.model.network import GatoNetwork
from policies.training.initialization import grown_config, start_from

LARGE = dataclasses.replace(SMALL, grid_size=9, vector_size=20)


def started(config: NetworkConfig) -> tuple[GatoNetwork, GatoNetwork]:
    torch.manual_seed(0)
    small, large = GatoNetwork(SMALL), GatoNetwork(config)
    start_from(large, small.state_dict())
    return small, large


def test_of_the_same_sizes_it_is_the_same() -> None:
    small, other = started(SMALL)
    weights = other.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in small.state_dict().items())


def test_a_shorter_vector_keeps_its_embedding() -> None:
    small, large = started(LARGE)
    x = torch.randn(3, 16)
    padded = torch.cat([x, torch.zeros(3, 4)], dim=1)
    longer = torch.cat([x, torch.randn(3, 4)], dim=1)
    wanted = small.embedding.vector(x)
    torch.testing.assert_close(large.embedding.vector(padded), wanted)
    torch.testing.assert_close(large.embedding.vector(longer), wanted)


def test_the_cells_of_a_grid_keep_their_places() -> None:
    small, large = started(LARGE)
    channels = SMALL.grid_channels
    there, here = small.embedding.grid, large.embedding.grid
    for row, column in ((0, 0), (3, 5), (6, 6)):
        assert torch.equal(here.where[:, row, column], there.where[:, row, column])
        at, of = ((row * side + column) * channels for side in (9, 7))
        kept = here.out.weight[:, at : at + channels]
        assert torch.equal(kept, there.out.weight[:, of : of + channels])
    assert here.out.weight[:, 8 * channels :][:, :channels].std() > 0, "new cells start at random"


def test_a_grid_that_reads_words_for_the_first_time_starts_afresh() -> None:
    torch.manual_seed(0)
    before, instructed = GatoNetwork(SMALL), GatoNetwork(INSTRUCTED)
    fresh = {name: tensor.clone() for name, tensor in instructed.state_dict().items()}
    start_from(instructed, before.state_dict())
    given = before.state_dict()
    for name, tensor in instructed.state_dict().items():
        wanted = fresh if name.startswith("embedding.grid.") else given
        assert torch.equal(tensor, wanted[name]), name
    again = GatoNetwork(INSTRUCTED)
    start_from(again, instructed.state_dict())
    assert torch.equal(again.embedding.grid.out.weight, instructed.embedding.grid.out.weight)


def test_sizes_grow_to_what_a_plan_needs_and_no_further() -> None:
    plan = state_plan()
    assert grown_config(SMALL, plan) == SMALL
    longer = compile_plan(
        plan.observation_space, plan.action_space, PlanOptions(vector_size=20, memory="none")
    )
    assert grown_config(SMALL, longer) == dataclasses.replace(SMALL, vector_size=20)


def test_an_option_for_vectors_counts_only_where_there_are_vectors() -> None:
    plan = state_plan()
    paper = PlanOptions(layout="paper", vector_size=20)
    tokens = compile_plan(plan.observation_space, plan.action_space, paper)
    assert tokens.vector_length == 0
    assert grown_config(SMALL, tokens) == SMALL


def test_weights_that_do_not_fit_are_refused() -> None:
    network = GatoNetwork(SMALL)
    weights = GatoNetwork(dataclasses.replace(SMALL, layers=3)).state_dict()
    with pytest.raises(ValueError, match=r"differ in backbone\.blocks\.2"):
        start_from(network, weights)
    weights = GatoNetwork(dataclasses.replace(SMALL, width=64)).state_dict()
    with pytest.raises(ValueError, match=r"in the weights and .* in the network"):
        start_from(network, weights)
