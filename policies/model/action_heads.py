"""From a hidden vector to action tokens.

* :class:`ActionHeads` -- the vector that each action position is chosen from, and the number of a
  continuous one.

One after another, an action token's vector is the hidden vector of the token before it. Side by
side, all action tokens of a timestep have the hidden vector of its last body token, and a small
network tells their positions apart.

Shapes: N predictions, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.model.config import NetworkConfig

__all__ = ["ActionHeads"]


class ActionHeads(nn.Module):
    """What stands between the backbone and the table of ids.

    Args:
        config: Sizes of the network.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        d = config.width
        self.place: nn.Embedding | None = None
        if config.action_places:
            self.place = nn.Embedding(config.action_places, d)
            self.expand, self.contract = nn.Linear(d, d), nn.Linear(d, d)
            nn.init.normal_(self.place.weight, std=0.5)
        self.number = nn.Linear(d, 1) if config.continuous_head == "regression" else None

    def at_places(self, hidden_ND: Tensor, places_N: Tensor) -> Tensor:
        """The vectors of action tokens that are chosen side by side.

        Args:
            hidden_ND: Hidden vectors of timesteps' last body tokens.
            places_N: int64, each token's position among its timestep's action tokens; -1 for one
                that is chosen after the token before it, whose vector stays as it is.

        Returns:
            float ``[N, D]``.
        """
        if self.place is None:
            return hidden_ND
        inner = F.gelu(self.expand(hidden_ND) + self.place(places_N.clamp(min=0)))
        moved = hidden_ND + self.contract(inner)
        return torch.where((places_N >= 0)[:, None], moved, hidden_ND)

    def numbers(self, vectors_ND: Tensor) -> Tensor:
        """Continuous actions by regression, in [-1, 1] where they are legal: float32 ``[N]``."""
        assert self.number is not None, "the network's continuous_head is 'regression'"
        number: Tensor = self.number(vectors_ND)
        return number[:, 0].float()
