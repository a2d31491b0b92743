"""From a hidden vector to action tokens.

* :class:`ActionHeads` -- the vector that each action position is chosen from, and the number of a
  continuous one.

One after another, an action token's vector is the hidden vector of the token before it. Side by
side, all action tokens of a timestep have the hidden vector of its last body token, and a small
network tells their positions apart.

Shapes: H hidden vectors, N predictions, D width.
"""

from __future__ import annotations

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
        self.number: nn.Linear | None = None
        if config.continuous_head == "regression":
            self.number = nn.Linear(d, 1)
            if config.action_places:
                self.number_at = nn.Embedding(config.action_places, d)
                nn.init.normal_(self.number_at.weight, std=d**-0.5)

    def at_places(self, hidden_HD: Tensor, owners_N: Tensor, places_N: Tensor) -> Tensor:
        """The vectors that action tokens are chosen from.

        Args:
            hidden_HD: Hidden vectors of the tokens that predict.
            owners_N: int64, which of them predicts each action token.
            places_N: int64, each token's position among its timestep's action tokens; -1 for one
                that is chosen after the token before it, whose vector stays as it is.

        Returns:
            float ``[N, D]``.
        """
        if self.place is None:
            return hidden_HD[owners_N]
        moved = self.contract(self._inner(hidden_HD, owners_N, places_N))
        return hidden_HD[owners_N] + moved * (places_N >= 0)[:, None]

    def numbers(self, hidden_HD: Tensor, owners_N: Tensor, places_N: Tensor) -> Tensor:
        """Continuous actions by regression, legal ones in [-1, 1]: float32 ``[N]``.

        Arguments as in :meth:`at_places`.
        """
        assert self.number is not None, "the network's continuous_head is 'regression'"
        number: Tensor = self.number(hidden_HD)[owners_N, 0]
        if self.place is None:
            return number.float()
        inner_ND = self._inner(hidden_HD, owners_N, places_N)
        moved = (inner_ND * self.number_at(places_N.clamp(min=0))).sum(1)
        return (number + moved * (places_N >= 0)).float()

    def _inner(self, hidden_HD: Tensor, owners_N: Tensor, places_N: Tensor) -> Tensor:
        assert self.place is not None
        return F.gelu(self.expand(hidden_HD)[owners_N] + self.place(places_N.clamp(min=0)))
