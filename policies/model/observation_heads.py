"""Predicting the next observation, an optional part of the training loss.

* :class:`NextParts` -- the parts of observations to predict.
* :class:`ObservationHeads` -- predicts them from hidden vectors; their losses.

Shapes: N parts, D width, K vector size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from policies.model.config import NetworkConfig
from policies.model.tensors import Tensors


@dataclass
class NextParts(Tensors):
    """Parts of one kind in the observations that follow timesteps.

    Attributes:
        slots: int64 ``[N]``, index into the flattened tokens of the predicting token: the last one
            of the previous timestep.
        local_positions: int64 ``[N]``, local position of the part in its timestep.
        values: ids int64 ``[N]``; vectors float32 ``[N, K]``; grids int64 ``[N, H, W, planes]``;
            image patches float32 ``[N, 4, P, P]``.
        weights: float32 ``[N]``; those of a timestep sum to 1 over all kinds.
    """

    slots: Tensor
    local_positions: Tensor
    values: Tensor
    weights: Tensor


class ObservationHeads(nn.Module):
    """One linear head for each kind of part except ids, which use the tied table.

    Numbers have the mean squared error, symbols the cross-entropy.
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
        """The loss of each part.

        Args:
            kind: "ids", "vectors", "grids" or "images".
            x_ND: float, hidden vectors with their part's local position added.
            values: As in :class:`NextParts`; ids count from the first one with logits.
            logits: Computes the logits of ids.

        Returns:
            float32 ``[N]``, the mean over a part's numbers or symbols.
        """
        if kind == "ids":
            return F.cross_entropy(logits(x_ND), values, reduction="none")
        if kind == "grids":
            predicted = self.grids(x_ND).unflatten(1, self.grid_shape).float()
            height, width, planes = values.shape[1:]
            predicted = predicted[:, :height, :width, :planes].movedim(-1, 1)
            symbols = values.clamp(max=self.grid_shape[-1] - 1)
            return F.cross_entropy(predicted, symbols, reduction="none").flatten(1).mean(1)
        head = self.vectors if kind == "vectors" else self.images
        target = values.flatten(1)
        predicted = head(x_ND).float()[:, : target.shape[1]]
        return F.mse_loss(predicted, target, reduction="none").mean(1)
