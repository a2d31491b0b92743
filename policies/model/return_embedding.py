"""The return to go of a timestep, as an extra input.

* :class:`TimestepReturns` -- which tokens carry which return.
* :class:`ReturnEmbedding` -- adds them to the tokens' embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from policies.model.tensors import Tensors


@dataclass
class TimestepReturns(Tensors):
    """Returns to go of tokens.

    Attributes:
        slots: int64 ``[N]``, index into the flattened ``[B * T]`` tokens.
        values: float32 ``[N]``, scaled returns to go.
    """

    slots: Tensor
    values: Tensor


class ReturnEmbedding(nn.Module):
    """A small MLP of one number. It begins as zero: a network that is given one acts as before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        for parameter in self.layers[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BTD: Tensor, returns: TimestepReturns) -> Tensor:
        """The embeddings ``[B, T, D]`` with their returns."""
        added = self.layers(returns.values.to(x_BTD)[:, None]).to(x_BTD)
        return x_BTD.flatten(0, 1).index_add(0, returns.slots, added).view_as(x_BTD)
