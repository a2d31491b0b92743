"""What an instruction says of the objects of a grid."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import INSTRUCTED, state_plan, without_zeros
from torch import Tensor

from gato_gym import PlanOptions, compile_plan
from policies.model.config import WORD_HEAD, NetworkConfig
from policies.model.inputs.grids import GridEmbedding
from policies.training.config import GRID_WORDS, network_config
from policies.training.settings import TrainSettings

TEXTS = torch.tensor([[5, 9, 7, 3], [8, 2, -1, -1]])


def embedding_of(config: NetworkConfig) -> GridEmbedding:
    torch.manual_seed(1)
    return without_zeros(GridEmbedding(config))


def instructions_of(grid: GridEmbedding, config: NetworkConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Words of :data:`TEXTS`, where there are any, and the encoded instructions."""
    words, mask = torch.randn(2, 4, config.width), TEXTS >= 0
    room = config.condition_size - config.grid_objects * config.grid_channels
    return words, mask, torch.cat([torch.zeros(2, room), grid.said_of_objects(words, mask)], 1)


@pytest.mark.parametrize("planes", [3, 2, 1])
def test_each_cells_object_attends_to_the_words_of_its_own_instruction(planes: int) -> None:
    config = dataclasses.replace(INSTRUCTED, grid_planes=planes)
    grid = embedding_of(config)
    words, _, instructions = instructions_of(grid, config)
    symbols = torch.randint(0, config.grid_symbols, (3, 2, 2, planes))
    owners = torch.tensor([1, -1, 0])
    said = grid._said(symbols, instructions, owners).unflatten(0, (3, 2, 2))
    module, table = grid.words, grid.cells.weight
    assert module is not None
    assert not said[1].any(), "no instruction says nothing"
    for number, length in ((0, 2), (2, 4)):
        text = words[owners[number], :length]
        for row in range(2):
            for column in range(2):
                first, *others = symbols[number, row, column].tolist()
                thing = table[first]
                if others:
                    thing = thing + table[config.grid_symbols + others[0]]
                keys, values = module.key_value(text).chunk(2, -1)
                parts = []
                for head in range(config.grid_words):
                    of = slice(head * WORD_HEAD, (head + 1) * WORD_HEAD)
                    scores = keys[:, of] @ module.query(thing)[of] / WORD_HEAD**0.5
                    weights = torch.cat([scores, torch.zeros(1)]).softmax(0)[:-1]
                    parts.append(weights @ values[:, of])
                wanted = module.out(torch.cat(parts))
                torch.testing.assert_close(said[number, row, column], wanted)


def test_it_starts_as_a_grid_that_only_the_whole_text_modulates() -> None:
    fresh = GridEmbedding(INSTRUCTED)
    without = GridEmbedding(dataclasses.replace(INSTRUCTED, grid_words=0))
    weights = fresh.state_dict()
    without.load_state_dict({name: weights[name] for name in without.state_dict()})
    _, _, instructions = instructions_of(fresh, INSTRUCTED)
    grids = torch.randint(0, 16, (2, 7, 7, 3), dtype=torch.uint8)
    condition, owners = torch.randn(2, INSTRUCTED.width), torch.tensor([0, 1])
    wanted = without(grids, condition, condition, owners)
    assert torch.equal(fresh(grids, condition, instructions, owners), wanted)
    other = without_zeros(fresh)
    _, _, instructions = instructions_of(other, INSTRUCTED)
    assert not torch.allclose(other(grids, condition, instructions, owners), wanted)


def test_an_instruction_is_rows_of_a_table_whatever_the_width() -> None:
    for width, channels in ((32, 8), (33, 8), (192, 32), (48, 20)):
        config = dataclasses.replace(INSTRUCTED, width=width, grid_channels=channels)
        assert config.condition_size % channels == 0
        assert config.condition_size - config.grid_objects * channels >= width
    assert dataclasses.replace(INSTRUCTED, grid_words=0).condition_size == INSTRUCTED.width
    with pytest.raises(ValueError, match="at most 65536 pairs of symbols"):
        dataclasses.replace(INSTRUCTED, grid_symbols=1000)


def test_a_fresh_network_attends_to_words_where_a_task_has_grids_with_instructions() -> None:
    image, options = spaces.Box(0, 10, (7, 7, 3), np.uint8), PlanOptions(grids=("image",))
    silent = spaces.Dict(image=image)
    instructed = spaces.Dict(image=image, mission=spaces.Text(40))
    plans = {
        name: compile_plan(space, spaces.Discrete(7), options)
        for name, space in (("silent", silent), ("instructed", instructed))
    }

    def heads(*names: str, start: NetworkConfig | None = None, **changes: Any) -> int:
        known = {name: plans[name] for name in names} | {"state": state_plan()}
        settings = TrainSettings(datasets=("any",), output=Path("any"), steps=1, **changes)
        return network_config(settings, known, start).grid_words

    assert heads("silent", "instructed") == GRID_WORDS
    assert heads("silent") == 0
    assert heads("instructed", network={"grid_words": 0}) == 0
    assert heads("instructed", start=NetworkConfig()) == 0, "it goes on as the network it was"
    assert heads("instructed", start=NetworkConfig(), network={"grid_words": 2}) == 2
