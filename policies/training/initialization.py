"""Weights that a training starts from, in a network that may be larger than theirs.

* :func:`grown_config` -- sizes in which a plan has room.
* :func:`start_from` -- gives a network the weights of another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from gato_gym.spaces import Plan
from policies.gato.task_specs import check_sizes
from policies.model.config import NetworkConfig
from policies.model.network import GatoNetwork


def grown_config(config: NetworkConfig, plan: Plan) -> NetworkConfig:
    """The configuration, with patches and grids as large as a plan's are if they are larger.

    Raises:
        ValueError: The plan has what no network takes, such as images of five channels.
    """
    height, width, planes = plan.grid_size
    vector = plan.options.vector_size if plan.vector_length else 0
    grown = dataclasses.replace(
        config,
        vector_size=max(config.vector_size, vector),
        grid_size=max(config.grid_size, height, width),
        grid_planes=max(config.grid_planes, planes),
    )
    check_sizes(grown, plan)
    return grown


def start_from(network: GatoNetwork, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a network of the same sizes, or of a larger one's patches and grids.

    What the smaller network had keeps its place in the larger one: the first numbers of a vector
    patch, the upper left of a grid. What is new stays as it was initialised; the weights of a
    vector patch's new numbers are zero, so that a shorter patch has the embedding that it had.

    Args:
        network: Freshly made; changed.
        weights: By parameter name.

    Raises:
        ValueError: The weights are of a network of another kind.
    """
    state = network.state_dict()
    if different := sorted(state.keys() ^ weights.keys()):
        raise ValueError(
            f"weights and network differ in {', '.join(different[:3])}: expected weights of a "
            "network of this kind"
        )
    for name, there in state.items():
        _copy(there, weights[name].to(there), network.config, name)


def _copy(there: Tensor, given: Tensor, config: NetworkConfig, name: str) -> None:
    if name == "embedding.grid.out.weight" and there.shape != given.shape:
        cells, channels = config.grid_size, config.grid_channels
        side = round((given.shape[1] // channels) ** 0.5)
        there = there.view(len(there), cells, cells, channels)
        given = given.view(len(given), side, side, channels)
    if name == "embedding.vector.0.weight" and there.shape != given.shape:
        there.zero_()
    if there.ndim != given.ndim or any(
        a < b for a, b in zip(there.shape, given.shape, strict=True)
    ):
        raise ValueError(
            f"{name} is {list(given.shape)} in the weights and {list(there.shape)} in the network: "
            "expected the same, or smaller"
        )
    with torch.no_grad():
        there[tuple(slice(size) for size in given.shape)].copy_(given)
