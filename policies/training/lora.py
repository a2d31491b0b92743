"""Low-rank updates of a network's matrices (LoRA, arXiv 2106.09685), by the ``peft`` library.

* :class:`LowRank` -- freezes a network but for low-rank updates of its backbone's matrices.
* :func:`merged` -- the same network with the updates added in: an ordinary one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from policies.model.network import GatoNetwork

MATRICES = r"backbone\..*\.(qkv|attention_out|feed_in|feed_out)"


@dataclass(frozen=True)
class LowRank:
    """Training of low-rank updates alone.

    The update of a matrix is ``2 * B @ A``. B is zero at first: the network is what it was.

    Attributes:
        rank: Rank of the updates of the backbone's four matrices a block, 1 or more.
        embeddings: Whether embedding and head are trained too, in full: for spaces that the
            network has not seen.
    """

    rank: int
    embeddings: bool

    def add(self, network: GatoNetwork) -> None:
        """Leave of a network's weights only the updates to train, in place.

        Raises:
            ImportError: ``peft`` is not installed.
        """
        peft = _peft()
        config = peft.LoraConfig(r=self.rank, lora_alpha=2 * self.rank, target_modules=MATRICES)
        peft.inject_adapter_in_model(config, network)
        if self.embeddings:
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
