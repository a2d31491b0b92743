"""Low-rank updates of a network's matrices (LoRA, arXiv 2106.09685), by the ``peft`` library.

* :func:`add_lora` -- freezes a network but for low-rank updates of its backbone's matrices.
* :func:`merged` -- the same network with the updates added in: an ordinary one.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from policies.model.network import GatoNetwork

MATRICES = r"backbone\..*\.(qkv|attention_out|feed_in|feed_out)"


def add_lora(network: GatoNetwork, rank: int, *, embeddings: bool) -> None:
    """Leave of a network's weights only low-rank updates to train, in place.

    The update of a matrix is ``2 * B @ A``. B is zero at first: the network is what it was.

    Args:
        network: Its backbone's four matrices a block get updates.
        rank: Rank of the updates.
        embeddings: Whether embedding and head are trained too, in full: for spaces that the
            network has not seen.

    Raises:
        ImportError: ``peft`` is not installed.
        ValueError: The rank is below 1.
    """
    if rank < 1:
        raise ValueError(f"LoRA's rank is {rank}: expected 1 or more, such as 8")
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=MATRICES)
    peft.inject_adapter_in_model(config, network)
    if embeddings:
        for module in (network.embedding, network.head):
            for parameter in module.parameters():
                parameter.requires_grad_(True)


def merged(network: GatoNetwork) -> GatoNetwork:
    """The network with its updates added to its matrices, in place."""
    layer_type = _peft().tuners.lora.LoraLayer
    layers = [
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, layer_type)
    ]
    for name, layer in layers:
        layer.merge()
        plain: Any = layer.get_base_layer()
        assert isinstance(plain, nn.Linear)
        network.set_submodule(name, plain)
    return network.requires_grad_(True)


def trained_parameters(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _peft() -> Any:
    try:
        import peft
        import peft.tuners.lora
    except ImportError as error:
        raise ImportError(
            "LoRA needs peft: run pip install 'gato-gym[lora]', or leave out --lora"
        ) from error
    return peft
