"""JAT's networks with fewer bits.

* :func:`with_precision` -- converts a network.

With eight bits the blocks' maps have weights of int8, and everything else is bfloat16. Where
:mod:`policies.jat.cpu_kernels` can be used, what enters a map has eight bits too.
"""

from __future__ import annotations

import torch

from policies.jat.network import JatNetwork
from policies.model.quantized_linear import quantized


def with_precision(network: JatNetwork, precision: str) -> JatNetwork:
    """Convert a float32 network in place; this cannot be reversed.

    Args:
        network: In float32, for inference.
        precision: "float32", "bfloat16" or "int8".

    Returns:
        ``network``.
    """
    if precision == network.precision:
        return network
    if network.precision != "float32":
        raise ValueError(
            f"the network is in {network.precision}: load it again to have it in {precision}"
        )
    maps = quantized(network.transformer, torch.int8) if precision == "int8" else {}
    network.to(torch.bfloat16)
    for name, module in maps.items():
        network.transformer.set_submodule(name, module)
    return network
