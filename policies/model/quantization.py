"""Where a network computes, and with how many bits.

* :func:`choose_device` -- a device by name.
* :data:`PRECISIONS`, :func:`choose_precision` -- the supported precisions.
* :func:`with_precision` -- converts a network.

The backbone and the output use fewer bits. A step of one row reads each of their weights once and
takes as long as reading them: half the bytes give up to twice the speed. Embeddings, of which a
step reads a few rows, stay in float32.
"""

from __future__ import annotations

import torch

from policies.model.network import GatoNetwork
from policies.model.quantized_linear import must_convert, quantize

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
    """Convert a float32 network in place; this cannot be reversed.

    Args:
        network: In float32, for inference.
        precision: "float32", "bfloat16", or "int8": weights of eight bits, the rest bfloat16.

    Returns:
        ``network``.
    """
    if not must_convert(network.precision, precision):
        return network
    quantize(network.backbone, getattr(torch, precision))
    network.head.to(torch.bfloat16)
    network.action_heads.to(torch.bfloat16)
    network.precision = precision
    network.freeze()
    return network


def choose_device(name: str) -> torch.device:
    """A device by name; "auto" is a GPU if there is one.

    Raises:
        ValueError: The device does not exist.
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
