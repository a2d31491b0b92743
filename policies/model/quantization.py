"""Where a network computes, and with how many bits.

* :func:`choose_device` -- a device by name.
* :data:`PRECISIONS`, :func:`choose_precision` -- what can be asked for.
* :func:`with_precision` -- a network in one of them.

Fewer bits are for the weights that a step reads, those of the backbone and of the output. A step of
one row reads every weight once, so it takes as long as reading them does: half the bytes
are up to twice the speed. Embeddings, of which a step reads a few rows, stay in float32.
"""

from __future__ import annotations

import torch
from torch import nn

from policies.model.network import GatoNetwork
from policies.model.quantized_linear import QuantizedLinear

__all__ = ["PRECISIONS", "choose_device", "choose_precision", "with_precision"]

PRECISIONS = ("auto", "float32", "bfloat16", "int8")


def choose_precision(precision: str, device: torch.device) -> str:
    """What "auto" means: float32 on a CPU, bfloat16 elsewhere.

    Raises:
        ValueError: No such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision is {precision!r}: expected one of {', '.join(map(repr, PRECISIONS))}"
        )
    if precision != "auto":
        return precision
    return "float32" if device.type == "cpu" else "bfloat16"


def with_precision(network: GatoNetwork, precision: str) -> GatoNetwork:
    """Turn a float32 network into one of a precision, in place; there is no way back.

    Args:
        network: In float32, for inference.
        precision: "float32", "bfloat16", or "int8": weights of eight bits, the rest bfloat16.

    Returns:
        ``network``.
    """
    if precision == network.precision:
        return network
    if network.precision != "float32":
        raise ValueError(
            f"the network is in {network.precision}: load it again to have it in {precision}"
        )
    narrow = {
        name: QuantizedLinear(module, getattr(torch, precision))
        for name, module in network.backbone.named_modules()
        if isinstance(module, nn.Linear)
    }
    network.backbone.to(torch.bfloat16)
    network.head.to(torch.bfloat16)
    for name, module in narrow.items():
        network.backbone.set_submodule(name, module)
    network.precision = precision
    network.freeze()
    return network


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one.

    Raises:
        ValueError: It is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}): "
            "expected 'auto', 'cpu', or the name of a GPU that is there, such as 'cuda'"
        ) from error
    return device
