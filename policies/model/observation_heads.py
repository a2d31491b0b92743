"""Predicting the next observation, which training can ask for beside actions.

* :class:`NextParts` -- the parts of observations that are to be predicted.
* :class:`ObservationHeads` -- from hidden vectors to those parts, and how wrong they are.

Shapes: N parts, D width, K vector size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.model.config import NetworkConfig


@dataclass
class NextParts:
    """Parts of one kind, of the observations that follow timesteps.

    Attributes:
        slots: int64 ``[N]``, index into the flattened tokens of the one that predicts: the last of
            the timestep before.
        local_positions: int64 ``[N]``, local position of the part in its timestep.
        values: ids int64 ``[N]``; vectors float32 ``[N, K]``; grids int64 ``[N, H, W, planes]``;
            image patches float32 ``[N, 4, P, P]``.
        weights: float32 ``[N]``; those of a timestep sum to 1 over all kinds.
    """

    slots: Tensor
    local_positions: Tensor
    values: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> NextParts:
        """The same on a device."""
        return NextParts(*(getattr(self, f.name).to(device) for f in fields(self)))


class ObservationHeads(nn.Module):
    """One linear head for each kind of part but ids, which have the tied table.

    What is regressed has the mean squared error, symbols have the cross-entropy.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        d, g, p = config.width, config.grid_size, config.patch_size
        self.grid_shape = (g, g, config.grid_planes, config.grid_symbols)
        self.vectors = nn.Linear(d, config.vector_size)
        self.grids = nn.Linear(d, g * g * config.grid_planes * config.grid_symbols)
        self.images = nn.Linear(d, 4 * p * p)

    def losses(
        self, kind: str, x_ND: Tensor, values: Tensor, logits: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """How wrong each part is said.

        Args:
            kind: "ids", "vectors", "grids" or "images".
            x_ND: float, hidden vectors with their part's local position added.
            values: As in :class:`NextParts`; ids count from the first that has logits.
            logits: Gives those of ids.

        Returns:
            float32 ``[N]``, the mean over a part's numbers or symbols.
        """
        if kind == "ids":
            return F.cross_entropy(logits(x_ND), values, reduction="none")
        if kind == "grids":
            said = self.grids(x_ND).unflatten(1, self.grid_shape).float()
            height, width, planes = values.shape[1:]
            said = said[:, :height, :width, :planes].movedim(-1, 1)
            symbols = values.clamp(max=self.grid_shape[-1] - 1)
            return F.cross_entropy(said, symbols, reduction="none").flatten(1).mean(1)
        head = self.vectors if kind == "vectors" else self.images
        wanted = values.flatten(1)
        said = head(x_ND).float()[:, : wanted.shape[1]]
        return F.mse_loss(said, wanted, reduction="none").mean(1)
