"""The Decision Transformer's network (arXiv 2106.01345, section 3).

A timestep is three tokens: the return to go, the state, the action. Each has a linear embedding,
to which that of the timestep is added; the action is predicted from the state's token. There are
no other positions: the backbone's rotation is that of position 0 everywhere.

* :class:`DtConfig` -- its sizes.
* :class:`DtBatch` -- windows of episodes; :func:`state_inputs` -- their observations.
* :class:`DtNetwork` -- the module.

Shapes: B rows, K timesteps, A positions of an action, E numbers that encode one, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gato_gym.files.bounded_io import as_type
from gato_gym.ranges import check_range
from gato_gym.spaces import Plan
from policies.model.config import NetworkConfig
from policies.model.inputs.embedding import Embedding, TokenInputs
from policies.model.inputs.sequence import TimestepArrays, TokenCollector
from policies.model.tensors import Tensors
from policies.model.transformer import Backbone


@dataclass(frozen=True)
class DtConfig:
    """Sizes.

    Attributes:
        network: Of the blocks and of the embeddings of observations.
        actions: Choices of each position of an action; 0 for a number in [-1, 1].
        context: K, timesteps that are seen.
        longest: Timesteps that have an embedding of their own; later ones share the last.

    Raises:
        ValueError: A size is out of range.
    """

    network: NetworkConfig
    actions: tuple[int, ...]
    context: int = 20
    longest: int = 1000

    def __post_init__(self) -> None:
        check_range(self, "context", "longest", low=1, high=2**16)
        if not self.actions or min(self.actions) < 0:
            raise ValueError(f"actions are {self.actions}: expected 0 or more choices each")

    observation_heads = False

    @property
    def action_numbers(self) -> int:
        """E: one for each number, and one for each choice."""
        return sum(max(1, count) for count in self.actions)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "actions": list(self.actions), "network": self.network.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DtConfig:
        """The sizes that :meth:`to_json` wrote.

        Raises:
            ValueError: A field is unknown or of another type.
        """
        sizes = dict(values)
        network = NetworkConfig.from_json(sizes.pop("network", {}))
        actions = as_type(tuple[int, ...], sizes.pop("actions", []), "actions")
        others = as_type(dict[str, int], sizes, "network")
        if unknown := sorted(others.keys() - {"context", "longest"}):
            raise ValueError(f"network has the unknown fields {unknown}")
        return cls(network, actions, **others)


@dataclass
class StateInputs(Tensors):
    """Observations of n timesteps.

    Attributes:
        tokens: Their parts, ``[n, num_tokens]``.
        texts: int64 ``[m, L]``, padded with -1.
    """

    tokens: TokenInputs
    texts: Tensor


@dataclass
class DtBatch(Tensors):
    """Windows of episodes, the shorter ones padded at their end.

    Attributes:
        states: Observations of all ``B * K`` timesteps; ``num_tokens`` tokens each, which are
            added up.
        returns: float32 ``[B, K]``, scaled returns to go.
        actions: int64 ``[B, K, A]``, counted from 0.
        timesteps: int64 ``[B, K]``, numbers in the episode.
        mask: bool ``[B, K]``, False for padding.
        task_tokens: Tokens of the task, by id.
    """

    states: StateInputs
    returns: Tensor
    actions: Tensor
    timesteps: Tensor
    mask: Tensor
    task_tokens: dict[str, int] = field(default_factory=dict)


def state_inputs(
    plan: Plan, arrays: TimestepArrays, texts: Sequence[NDArray[np.integer]]
) -> StateInputs:
    """Observations as a network takes them.

    Args:
        plan: Encoded them.
        arrays: Parts of n timesteps.
        texts: Ids of each one's text; empty for a plan without texts.
    """
    count = len(arrays.ids)
    collector = TokenCollector(count, plan.num_tokens)
    collector.add_parts(plan, np.arange(count) * plan.num_tokens, arrays)
    numbers: dict[bytes, int] = {}
    for row, text in enumerate(texts):
        if len(text):
            key = np.asarray(text, np.int64).tobytes()
            collector.conditions[row] = numbers.setdefault(key, len(numbers))
    each = [np.frombuffer(key, np.int64) for key in numbers] or [np.full(1, -1)]
    padded = np.full((len(each), max(map(len, each))), -1, np.int64)
    for row, text in enumerate(each):
        padded[row, : len(text)] = text
    return StateInputs(collector.finish(), torch.from_numpy(padded))


class DtNetwork(nn.Module):
    """The transformer over returns, states and actions."""

    def __init__(self, config: DtConfig) -> None:
        super().__init__()
        self.config, width = config, config.network.width
        self.embedding = Embedding(config.network)
        self.embed_return = nn.Linear(1, width)
        self.embed_action = nn.Linear(config.action_numbers, width)
        self.embed_timestep = nn.Embedding(config.longest, width)
        self.norm = nn.LayerNorm(width)
        self.backbone = Backbone(config.network)
        self.head = nn.Linear(width, config.action_numbers)
        nn.init.normal_(self.embed_timestep.weight, std=0.02)

    def embed_states(self, states: StateInputs) -> Tensor:
        """Embeddings of n observations: float ``[n, D]``."""
        conditions = self.embedding.encode_texts(states.texts)
        x_ND = self.embedding(states.tokens, conditions).sum(1)
        owners = states.tokens.conditions[:, 0]
        said = self.embedding.condition_in(
            conditions[owners.clamp(min=0), : self.config.network.width]
        )
        return x_ND + said * (owners >= 0)[:, None]

    def encode_actions(self, actions: Tensor) -> Tensor:
        """Numbers of actions: int64 ``[..., A]`` counted from 0, to float32 ``[..., E]``.

        A number is in 1024 bins, of which each stands for its centre; a choice is one-hot.
        """
        parts = []
        for place, count in enumerate(self.config.actions):
            chosen = actions[..., place]
            if count:
                parts.append(F.one_hot(chosen, count).float())
            else:
                bins = len(self.config.network.vocabulary.continuous)
                parts.append(((chosen.float() + 0.5) * (2.0 / bins) - 1.0)[..., None])
        return torch.cat(parts, -1)

    def embed(self, returns: Tensor, states: Tensor, actions: Tensor, timesteps: Tensor) -> Tensor:
        """The three tokens of each timestep, in order.

        Args:
            returns: float ``[...]``, scaled.
            states: float ``[..., D]``, from :meth:`embed_states`.
            actions: float ``[..., E]``.
            timesteps: int64 ``[...]``.

        Returns:
            float ``[..., 3, D]``, before the norm.
        """
        tokens = (self.embed_return(returns[..., None]), states, self.embed_action(actions))
        return torch.stack([self.at(token, timesteps) for token in tokens], -2)

    def at(self, token: Tensor, timesteps: Tensor) -> Tensor:
        """Embeddings ``[..., D]`` with those of their timesteps, int64 ``[...]``."""
        last = self.config.longest - 1
        return token + self.embed_timestep(timesteps.clamp(max=last))

    def hidden(self, x_BTD: Tensor) -> Tensor:
        """Hidden vectors of embedded tokens, each of which sees those before it: ``[B, T, D]``."""
        length = x_BTD.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=x_BTD.device).tril()
        nowhere = torch.zeros(x_BTD.shape[:2], dtype=torch.long, device=x_BTD.device)
        return self.backbone(self.norm(x_BTD), nowhere, causal[None, None])

    def forward(self, batch: DtBatch) -> Tensor:
        """What is predicted of each timestep's action: float32 ``[B, K, E]``."""
        shape = batch.returns.shape
        states = self.embed_states(batch.states).unflatten(0, shape)
        actions = self.encode_actions(batch.actions)
        x_BK3D = self.embed(batch.returns, states, actions, batch.timesteps)
        return self.predict(self.hidden(x_BK3D.flatten(1, 2))[:, 1::3])

    def predict(self, hidden: Tensor) -> Tensor:
        """Numbers in [-1, 1] and logits, of states' hidden vectors: float32 ``[..., E]``."""
        scores = self.head(hidden).float()
        parts = scores.split([max(1, count) for count in self.config.actions], -1)
        pairs = zip(parts, self.config.actions, strict=True)
        return torch.cat([part if count else part.tanh() for part, count in pairs], -1)

    def errors(self, predicted: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each timestep, and how far it is off.

        Args:
            predicted: ``[B, K, E]``, from :meth:`forward`.
            actions: int64 ``[B, K, A]``.

        Returns:
            float32 ``[B, K]`` twice: the mean over positions of the squared error of a number, or
            of the cross-entropy of a choice; and that of the absolute error, or of misses.
        """
        parts = predicted.split([max(1, count) for count in self.config.actions], -1)
        encoded = self.encode_actions(actions).split([part.shape[-1] for part in parts], -1)
        errors, off = [], []
        for part, target, count in zip(parts, encoded, self.config.actions, strict=True):
            if count:
                errors.append(-(part.log_softmax(-1) * target).sum(-1))
                off.append((part.argmax(-1) != target.argmax(-1)).float())
            else:
                errors.append((part - target).square()[..., 0])
                off.append((part - target).abs()[..., 0])
        return torch.stack(errors).mean(0), torch.stack(off).mean(0).detach()
