"""Gato's network: embedding, backbone, and logits from the tied table.

* :class:`GatoNetwork` -- the module whose weights a checkpoint holds.
* :class:`PackedBatch` -- whole packed sequences with their targets, for training.

Shapes: B rows, T tokens, D width, N targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.model.action_heads import ActionHeads
from policies.model.attention import TokenRoles
from policies.model.config import NetworkConfig
from policies.model.inputs.embedding import Embedding, TokenInputs
from policies.model.kv_cache import RingCache
from policies.model.observation_heads import NextParts, ObservationHeads
from policies.model.return_embedding import ReturnEmbedding, TimestepReturns
from policies.model.tensors import Tensors
from policies.model.transformer import Backbone


@dataclass
class Targets(Tensors):
    """Action tokens, and tokens of texts, to predict.

    Attributes:
        slots: int64 ``[N]``, index into the flattened ``[B * T]`` tokens of the position that
            predicts: the one *before* the target token.
        ids: int64 ``[N]``, the vocabulary id to predict.
        starts, stops: int64 ``[N]``, legal ids of the position: ``[start, stop)``; texts also allow
            the separator.
        places: int64 ``[N]``, position among the action tokens of the timestep where these are
            predicted side by side; -1 where the token before predicts.
        soft: float32 ``[N, K]``, what the expert chose from: probabilities of the ids from the
            first legal one on, zeros where they are not known; of a continuous token the standard
            deviation in column 0, in units of [-1, 1]. K is 0 where nobody's are known.
        weights: float32 ``[N]``, weights in the loss.
        tasks: int64 ``[N]``, index of the task among the packer's tasks.
    """

    slots: Tensor
    ids: Tensor
    starts: Tensor
    stops: Tensor
    places: Tensor
    soft: Tensor
    weights: Tensor
    tasks: Tensor


@dataclass
class PackedBatch(Tensors):
    """Packed sequences: tokens, texts that condition them, roles, targets.

    Attributes:
        tokens: The tokens.
        texts: int64 ``[n, L]``, the texts that ``tokens.conditions`` names, padded with -1.
        roles: What decides visibility.
        targets: What is predicted.
        task_tokens: Number of tokens of each task, by id.
        next_parts: The next observations by the kind of their parts; empty if they are not
            predicted.
        residual_mask: float32 ``[B, L, 2]``, see
            :meth:`policies.model.transformer.Backbone.forward`; None without stochastic depth.
        returns: Returns to go; None where the network does not read them.
    """

    tokens: TokenInputs
    texts: Tensor
    roles: TokenRoles
    targets: Targets
    task_tokens: dict[str, int] = field(default_factory=dict)
    next_parts: dict[str, NextParts] = field(default_factory=dict)
    residual_mask: Tensor | None = None
    returns: TimestepReturns | None = None


class GatoNetwork(nn.Module):
    """The transformer over token embeddings.

    Args:
        config: Its sizes.

    Attributes:
        precision: Precision of the backbone and the head, see :mod:`policies.model.quantization`.
    """

    output_table: Tensor | None

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.precision = "float32"
        self.register_buffer("output_table", None, persistent=False)
        self.embedding = Embedding(config)
        self.backbone = Backbone(config)
        self.head = nn.Linear(config.width, config.width)
        self.action_heads = ActionHeads(config)
        self.observation_heads = ObservationHeads(config) if config.observation_heads else None
        self.return_embedding = ReturnEmbedding(config.width) if config.return_conditioned else None

    def forward(self, batch: PackedBatch) -> Tensor:
        """Hidden vectors of packed sequences: float ``[B, T, D]``."""
        conditions = self.embedding.encode_texts(batch.texts)
        x = self.with_returns(self.embedding(batch.tokens, conditions), batch.returns)
        mask = self.backbone.visibility(batch.roles)
        return self.backbone(x, batch.roles.positions, mask, batch.residual_mask)

    def with_returns(self, x_BTD: Tensor, returns: TimestepReturns | None) -> Tensor:
        """Embeddings ``[B, T, D]`` with the returns to go that the network reads."""
        if self.return_embedding is None or returns is None:
            return x_BTD
        conditioned: Tensor = self.return_embedding(x_BTD, returns)
        return conditioned

    def step(
        self,
        x_ND: Tensor,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        cache: RingCache,
        *,
        wanted: bool = True,
    ) -> Tensor:
        """Hidden vectors of new tokens against the cache: float ``[N, D]``.

        Arguments as in :meth:`policies.model.transformer.Backbone.step`.
        """
        x_ND = x_ND.to(self.head.weight.dtype)
        return self.backbone.step(x_ND, rows, positions, cache, wanted=wanted)

    @property
    def is_exact(self) -> bool:
        """Whether a row's numbers are the same in any batch: in float32 on a CPU."""
        return self.precision == "float32" and self.head.weight.device.type == "cpu"

    def freeze(self) -> None:
        """Precompute the output table for inference."""
        self.embedding.freeze()
        self.backbone.freeze()
        self.output_table = self.embedding.symbol_table().to(self.head.weight.dtype)

    def symbol_logits(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        """Logits of the ids ``[start, stop)``, all past the text ids.

        Args:
            hidden: float ``[..., D]``.
            start: First id.
            stop: One past the last id.

        Returns:
            float32 ``[..., stop - start]``.
        """
        first = self.config.vocabulary.text.stop
        frozen = None if self.training else self.output_table
        table = self.embedding.symbol_table() if frozen is None else frozen
        table = table[start - first : stop - first]
        return (self.head(hidden) @ table.T).float()

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the text ids: float32 ``[..., 32000]``."""
        factor = self.head(hidden).float() @ self.embedding.text_out.weight
        return factor @ self.embedding.text.weight.T

    def writing_logits(self, hidden: Tensor) -> Tensor:
        """Logits of a text's next token: float32 ``[..., 32001]``.

        One for each text id, then the separator, which ends the text.
        """
        vocabulary = self.config.vocabulary
        ends = self.symbol_logits(hidden, vocabulary.separator, vocabulary.separator + 1)
        return torch.cat([self.text_logits(hidden)[..., vocabulary.text.start :], ends], dim=-1)


def count_parameters(network: nn.Module) -> int:
    """Number of weights, of however many bits."""
    named = network.state_dict().items()
    return sum(t.numel() for name, t in named if not name.endswith(".scale"))


def inference(network: GatoNetwork) -> GatoNetwork:
    """The network in evaluation mode, without gradients."""
    network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.freeze()
    return network


__all__ = ["GatoNetwork", "PackedBatch", "Targets", "count_parameters", "inference"]
