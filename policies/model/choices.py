"""The loss of discrete choices, against what an expert chose from.

* :func:`choice_losses` -- cross-entropy with the expert's probabilities, or with its action.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def choice_losses(logits: Tensor, labels: Tensor, soft: Tensor) -> Tensor:
    """Cross-entropy of choices against the expert's probabilities, or its action without them.

    Args:
        logits: float32 ``[N, n]``, -inf where a choice is not legal.
        labels: int64 ``[N]``, the actions taken, in ``[0, n)``.
        soft: float32 ``[N, K]``, as :class:`~policies.model.network.Targets` has it.

    Returns:
        float32 ``[N]``.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    if not soft.shape[1]:
        return losses
    count = min(soft.shape[1], logits.shape[1])
    given = soft[:, :count]
    total = given.sum(1)
    logs = logits.log_softmax(1)[:, :count]
    expected = (given * logs.masked_fill(given == 0, 0.0)).sum(1) / total.clamp(min=1e-6)
    return torch.where(total > 0, -expected, losses)
