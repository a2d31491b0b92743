"""JAT's networks with fewer bits.

* :func:`with_precision` -- converts a network.

With eight bits the blocks' maps have weights of int8, and everything else is bfloat16. Where
:mod:`policies.jat.cpu_kernels` can be used, what enters a map has eight bits too.
"""

from __future__ import annotations

import torch

from policies.jat.network import JatNetwork
from policies.model.quantized_linear import must_convert, quantize


def with_precision(network: JatNetwork, precision: str) -> JatNetwork:
    """Convert a float32 network in place; this cannot be reversed.

    Args:
        network: In float32, for inference.
        precision: "float32", "bfloat16" or "int8".

    Returns:
        ``network``.
    """
    if not must_convert(network.precision, precision):
        return network
    for part in network.children():
        if part is network.transformer and precision == "int8":
            quantize(part, torch.int8)
        else:
            part.to(torch.bfloat16)
    return network
