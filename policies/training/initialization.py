"""Weights that a training starts from, in a network that may be larger than theirs.

* :func:`grown_config` -- sizes in which a plan has room.
* :func:`start_from` -- gives a network the weights of another.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gato_gym.spaces import Plan
from policies.gato.task_specs import check_sizes
from policies.model.config import NetworkConfig, fitted
from policies.model.network import GatoNetwork


def grown_config(config: NetworkConfig, plan: Plan) -> NetworkConfig:
    """The configuration in which a plan has room, see :func:`policies.model.config.fitted`.

    Raises:
        ValueError: The plan has what no network takes, such as image patches of five channels.
    """
    grown = fitted(config, [plan])
    check_sizes(grown, plan)
    return grown


GRID, WORDS = "embedding.grid.", "embedding.grid.words."
OPTIONAL = ("action_heads.", WORDS, "embedding.image.", "embedding.task.", "return_embedding.")
"""Parts that only some networks have: what the weights lack of them stays as it was initialised."""


def start_from(network: GatoNetwork, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a network of the same sizes, or of a larger one's patches and grids.

    What the smaller network had keeps its place in the larger one: the first numbers of a vector
    patch, the upper left of a grid. What is new stays as it was initialised; the weights of a
    vector patch's new numbers are zero, so that a shorter patch has the embedding that it had. A
    grid whose objects attend to words for the first time starts afresh: a trained one hardly takes
    them up.

    Args:
        network: Freshly made; changed.
        weights: By parameter name.

    Raises:
        ValueError: The weights are of a network of another kind.
    """
    state = network.state_dict()
    optional: tuple[str, ...] = OPTIONAL
    if network.config.grid_words and not any(name.startswith(WORDS) for name in weights):
        weights = {name: weight for name, weight in weights.items() if not name.startswith(GRID)}
        optional += (GRID,)
    different = {name for name in state.keys() ^ weights.keys() if not name.startswith(optional)}
    if different:
        raise ValueError(
            f"weights and network differ in {', '.join(sorted(different)[:3])}: expected weights "
            "of a network of this kind"
        )
    for name in state.keys() & weights.keys():
        parameter = state[name]
        _copy(parameter, weights[name].to(parameter), network.config, name)


def _copy(parameter: Tensor, weight: Tensor, config: NetworkConfig, name: str) -> None:
    if name == "embedding.grid.out.weight" and parameter.shape != weight.shape:
        cells, channels = config.grid_size, config.grid_channels
        side = round((weight.shape[1] // channels) ** 0.5)
        parameter = parameter.view(len(parameter), cells, cells, channels)
        weight = weight.view(len(weight), side, side, channels)
    if name == "embedding.vector.0.weight" and parameter.shape != weight.shape:
        parameter.zero_()
    if parameter.ndim != weight.ndim or any(
        a < b for a, b in zip(parameter.shape, weight.shape, strict=True)
    ):
        raise ValueError(
            f"{name} is {list(weight.shape)} in the weights and {list(parameter.shape)} in the "
            "network: expected the same, or smaller"
        )
    with torch.no_grad():
        parameter[tuple(slice(size) for size in weight.shape)].copy_(weight)
