"""Where a network computes, and with how many bits.

* :func:`choose_device` -- a device by name.
* :data:`PRECISIONS`, :func:`choose_precision` -- what can be asked for.
* :func:`with_precision` -- a network in one of them.
* :class:`Int8Linear` -- a linear map with weights of eight bits.

Fewer bits are for the weights that a step reads, those of the backbone and of the output. A step of
one row reads every weight once, so it takes as long as reading them does: half the bytes
are up to twice the speed. Embeddings, of which a step reads a few rows, stay in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policies.network import GatoNetwork

__all__ = ["PRECISIONS", "Int8Linear", "choose_device", "choose_precision", "with_precision"]

PRECISIONS = ("auto", "float32", "bfloat16", "int8")


class Int8Linear(nn.Module):
    """A linear map ``y = x W^T`` whose weights are whole numbers times a scale for each output.

    Args:
        linear: What it replaces; without a bias.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        assert linear.bias is None, "the backbone's maps have none"
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        """``bfloat16 [N, K]`` to ``bfloat16 [N, M]``."""
        if x.device.type == "cpu":
            return torch._weight_int8pack_mm(x, self.weight, self.scale)
        return nn.functional.linear(x, self.weight.to(x.dtype)) * self.scale


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
    network.backbone.to(torch.bfloat16)
    network.head.to(torch.bfloat16)
    if precision == "int8":
        for block in network.backbone.blocks:
            for name, module in list(block.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(block, name, Int8Linear(module))
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
