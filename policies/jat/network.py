"""The JAT network: encoders, the backbone, decoders, and the published losses.

* :class:`JatNetwork` -- embeds observations, actions and text, and predicts the next ones.
* :class:`EpisodeBatch`, :class:`TextBatch` -- what it is trained on.
* :class:`Predictions`, :class:`Losses` -- what comes out.

A timestep is two tokens: its observation, with the reward of the step before it, and its action.
The observation's hidden vector predicts the action, the action's the next observation.

Shapes: B rows, T timesteps, P tokens of a text, n numbers or symbols, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.jat.backbone import Backbone
from policies.jat.block import Block
from policies.jat.config import JatConfig
from policies.jat.encoders import ImageDecoder, ImageEncoder, PatchEncoder
from policies.model.choices import choice_losses
from policies.model.tensors import Tensors

SYMBOLS = 8
"""Values of a symbol that the unused decoder of discrete observations has logits for."""


@dataclass(frozen=True)
class EpisodeBatch(Tensors):
    """Timesteps of episodes; observations and actions are each of one kind.

    Attributes:
        rewards: float ``[B, T]``, the reward of the step before: an episode's first is 0.
        continuous_observations: float ``[B, T, n]``.
        discrete_observations: int64 ``[B, T, n]``, n is ``max_discrete_value``.
        image_observations: float ``[B, T, 4, 84, 84]`` in [-1, 1].
        continuous_actions: float ``[B, T, n]``.
        discrete_actions: int64 ``[B, T]``.
        mask: bool ``[B, T]``, False for padding; None has none.
        weights: float ``[B, T]``, weights in the loss; None is 1.
        past_actions: What was executed, which later timesteps see, where it is not the actions to
            be learned; as these.
        soft: float ``[B, T, K]``, probabilities that the expert chose a discrete action with;
            zeros where it did not say, and None where it never did.
        observation_sizes, action_sizes: int64 ``[B]``, how many numbers of each row's vectors are
            no padding; None is n for all.
    """

    rewards: Tensor
    continuous_observations: Tensor | None = None
    discrete_observations: Tensor | None = None
    image_observations: Tensor | None = None
    continuous_actions: Tensor | None = None
    discrete_actions: Tensor | None = None
    mask: Tensor | None = None
    weights: Tensor | None = None
    past_actions: Tensor | None = None
    soft: Tensor | None = None
    observation_sizes: Tensor | None = None
    action_sizes: Tensor | None = None

    def __post_init__(self) -> None:
        observations = (
            self.continuous_observations, self.discrete_observations, self.image_observations,
        )  # fmt: skip
        actions = (self.continuous_actions, self.discrete_actions)
        for name, kinds in (("observations", observations), ("actions", actions)):
            if (given := sum(part is not None for part in kinds)) != 1:
                raise ValueError(f"batch has {given} kinds of {name}: expected one")


@dataclass(frozen=True)
class TextBatch(Tensors):
    """Texts, each after an image or without one.

    Attributes:
        ids: int64 ``[B, P]``.
        images: float ``[B, 3, 224, 224]``, normalised as CLIP's; None has none.
        mask: bool ``[B, P]``, False for padding; None has none.
    """

    ids: Tensor
    images: Tensor | None = None
    mask: Tensor | None = None


class Errors(NamedTuple):
    """How wrong each timestep is.

    Attributes:
        actions: float32 ``[B, T]``, squared error or cross-entropy.
        observations: float32 ``[B, T - 1]``, squared error of the next observation; None where it
            is not predicted.
        misses: float32 ``[B, T]``, without gradient: the mean absolute error of numbers, or 1
            where another choice is the most likely one.
    """

    actions: Tensor
    observations: Tensor | None
    misses: Tensor


class Losses(NamedTuple):
    """Scalars: ``total`` is κ times ``observation`` plus the rest's share of ``action``."""

    total: Tensor
    observation: Tensor
    action: Tensor


class Predictions(NamedTuple):
    """What each timestep predicts.

    Attributes:
        observations: Of the next timestep, as the batch has them but vectors with their reward
            repeated up to ``max_continuous_size``; None for discrete ones and where κ is 0.
        actions: float ``[B, T, max_continuous_size]``, or logits ``[B, T, vocab_size]``.
    """

    observations: Tensor | None
    actions: Tensor


class JatNetwork(nn.Module):
    """Every modality of JAT in one network.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: JatConfig) -> None:
        super().__init__()
        self.config = config
        width, symbols, small = config.hidden_size, config.max_discrete_value, config.symbol_size
        self.transformer = Backbone(config)
        self.vit_encoder = PatchEncoder(config.num_channels, config.patch_size, width)
        self.continuous_encoder = nn.Linear(config.max_continuous_size, width)
        self.multi_discrete_encoder = nn.ModuleDict(
            {"1": nn.Linear(width, small), "4": nn.Linear(symbols * small, width - 1)}
        )
        self.image_encoder = nn.ModuleDict({"module": ImageEncoder(width, config.image_channels)})
        self.single_discrete_decoder = nn.Linear(width, config.vocab_size, bias=False)
        self.continuous_decoder = nn.Linear(width, config.max_continuous_size)
        self.multi_discrete_decoder = nn.ModuleDict(  # published, and never used
            {
                "0": nn.Linear(width, symbols * small),
                "3": nn.Linear(small, width),
                "5": nn.Linear(width, SYMBOLS, bias=False),
            }
        )
        self.image_decoder = nn.ModuleDict({"module": ImageDecoder(width, config.image_channels)})
        self.apply(_initialize)

    @property
    def precision(self) -> str:
        """The dtype of the blocks' weights: "float32", "bfloat16" or "int8"."""
        block = self.transformer.h[0]
        assert isinstance(block, Block)
        return str(block.mlp.c_fc.weight.dtype).removeprefix("torch.")

    def embed_numbers(self, values: Tensor) -> Tensor:
        """Vectors ``[..., n]``, repeated cyclically, as ``[..., D]``.

        Raises:
            ValueError: There are more numbers than the network reads.
        """
        return self.continuous_encoder(self._cyclic(values))

    def _cyclic(self, values: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Vectors repeated; of rows ``[B, T, n]`` the first ``sizes`` numbers, int64 ``[B]``."""
        count, most = values.shape[-1], self.config.max_continuous_size
        places = torch.arange(most, device=values.device)
        if sizes is not None:
            places = (places % sizes[:, None])[:, None].expand(-1, values.shape[1], -1)
            return values.gather(-1, places)
        if not 0 < count <= most:
            raise ValueError(f"a vector has {count} numbers: expected 1 to {most}")
        return values[..., places % count]

    def embed_symbols(self, symbols: Tensor, rewards: Tensor) -> Tensor:
        """Symbols int64 ``[..., n]`` and a reward ``[...]`` as ``[..., D]``."""
        if symbols.shape[-1] != self.config.max_discrete_value:
            raise ValueError(
                f"a discrete observation has {symbols.shape[-1]} symbols: expected "
                f"{self.config.max_discrete_value}"
            )
        reduce, join = self.multi_discrete_encoder["1"], self.multi_discrete_encoder["4"]
        if torch.is_grad_enabled() and symbols.numel() > self.config.vocab_size:
            parts = F.embedding(symbols, reduce(self.transformer.wte.weight))  # each symbol once
        else:
            parts = reduce(self.transformer.wte(symbols))
        x: Tensor = join(F.relu(parts).flatten(-2))
        return torch.cat([x, rewards[..., None].to(x)], -1)

    def embed_images(self, images: Tensor) -> Tensor:
        """Images ``[..., 4, 84, 84]`` in [-1, 1] as ``[..., D]``."""
        x: Tensor = self.image_encoder["module"](images.flatten(0, -4))
        return x.unflatten(0, images.shape[:-3])

    def embed_ids(self, ids: Tensor) -> Tensor:
        """Text tokens or discrete actions int64 ``[...]`` as ``[..., D]``."""
        return self.transformer.wte(ids)

    def predict_numbers(self, hidden: Tensor) -> Tensor:
        """Vectors ``[..., max_continuous_size]`` from hidden vectors ``[..., D]``."""
        return self.continuous_decoder(hidden)

    def logits(self, hidden: Tensor, count: int | None = None) -> Tensor:
        """Logits of the first ``count`` tokens, None for all, from hidden vectors ``[..., D]``."""
        return F.linear(hidden, self.single_discrete_decoder.weight[:count])

    def forward(self, batch: EpisodeBatch) -> Predictions:
        """What each timestep predicts of its action and of the next observation."""
        tokens = torch.stack([self._observations(batch), self._actions(batch)], 2).flatten(1, 2)
        mask = None if batch.mask is None else batch.mask.repeat_interleave(2, 1)
        hidden = self.transformer(tokens, mask)
        deciding, acted = hidden[:, ::2], hidden[:, 1::2]
        if batch.continuous_actions is not None:
            actions = self.predict_numbers(deciding)
        else:
            actions = self.logits(deciding)
        observations = None
        if self.config.observation_loss_coef and batch.image_observations is not None:
            images: Tensor = self.image_decoder["module"](acted.flatten(0, 1))
            observations = images.unflatten(0, acted.shape[:2])
        elif self.config.observation_loss_coef and batch.continuous_observations is not None:
            observations = self.predict_numbers(acted)
        return Predictions(observations, actions)

    def losses(self, batch: EpisodeBatch) -> Losses:
        """The κ-weighted losses: squared error for vectors and images, cross-entropy for choices.

        Discrete observations are not predicted. Vectors are compared where they are repeated, too,
        and an observation with its reward, as published.
        """
        errors = self.errors(batch)
        action = _mean(errors.actions, batch.mask, batch.weights)
        observation = action.new_zeros(())
        if errors.observations is not None:
            mask, weights = (
                None if part is None else part[:, 1:] for part in (batch.mask, batch.weights)
            )
            observation = _mean(errors.observations, mask, weights)
        shares = self.config.observation_loss_coef, self.config.action_loss_coef
        return Losses(shares[0] * observation + shares[1] * action, observation, action)

    def errors(self, batch: EpisodeBatch) -> Errors:
        """The errors that :meth:`losses` weighs; those of padding mean nothing."""
        observations, actions = self(batch)
        actions = actions.float()
        if batch.continuous_actions is not None:
            expected = self._cyclic(batch.continuous_actions, batch.action_sizes)
            errors = (actions - expected).square().mean(-1)
            misses = (actions.detach() - expected).abs().mean(-1)
        else:
            assert batch.discrete_actions is not None
            labels, soft = batch.discrete_actions.flatten(), batch.soft
            soft = actions.new_zeros(len(labels), 0) if soft is None else soft.flatten(0, 1)
            errors = choice_losses(actions.flatten(0, 1), labels, soft).view(actions.shape[:2])
            misses = (actions.detach().argmax(-1) != batch.discrete_actions).float()
        if observations is None or batch.rewards.shape[1] < 2:
            return Errors(errors, None, misses)
        following = batch.image_observations
        if following is None:
            following = self._repeated_observations(batch)
        said = observations[:, :-1].float()
        return Errors(errors, (said - following[:, 1:]).square().flatten(2).mean(-1), misses)

    def text_logits(self, batch: TextBatch) -> Tensor:
        """Logits of the token after each: ``[B, P, vocab_size]``."""
        x, mask = self.embed_ids(batch.ids), batch.mask
        if batch.images is not None:
            patches = self.vit_encoder(batch.images)
            x = torch.cat([patches, x], 1)
            mask = None if mask is None else F.pad(mask, (patches.shape[1], 0), value=True)
        return self.logits(self.transformer(x, mask)[:, -batch.ids.shape[1] :])

    def text_errors(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """Of each token but the first its cross-entropy, and 1 where another is the most likely:
        float32 ``[B, P - 1]``; those of padding mean nothing."""
        logits, labels = self.text_logits(batch)[:, :-1].float(), batch.ids[:, 1:]
        errors = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return errors, (logits.detach().argmax(-1) != labels).float()

    def text_loss(self, batch: TextBatch) -> Tensor:
        """Cross-entropy of each token of a text but its first: a scalar."""
        errors, _ = self.text_errors(batch)
        return _mean(errors, None if batch.mask is None else batch.mask[:, 1:], None)

    def _repeated_observations(self, batch: EpisodeBatch) -> Tensor:
        """Vectors, each with its reward at the end, repeated: ``[B, T, max_continuous_size]``."""
        assert batch.continuous_observations is not None
        rewards, sizes = batch.rewards[..., None], batch.observation_sizes
        values = torch.cat([batch.continuous_observations, rewards], -1)
        if sizes is None:
            return self._cyclic(values)
        ends = sizes[:, None, None].expand(-1, values.shape[1], 1)
        return self._cyclic(values.scatter(-1, ends, rewards.to(values)), sizes + 1)

    def _observations(self, batch: EpisodeBatch) -> Tensor:
        """Embeddings of the observations: ``[B, T, D]``."""
        if batch.continuous_observations is not None:
            return self.continuous_encoder(self._repeated_observations(batch))
        if batch.discrete_observations is not None:
            return self.embed_symbols(batch.discrete_observations, batch.rewards)
        assert batch.image_observations is not None
        return self.embed_images(batch.image_observations)

    def _actions(self, batch: EpisodeBatch) -> Tensor:
        """Embeddings of the actions: ``[B, T, D]``."""
        actions = batch.past_actions
        if batch.continuous_actions is not None:
            actions = batch.continuous_actions if actions is None else actions
            return self.continuous_encoder(self._cyclic(actions, batch.action_sizes))
        actions = batch.discrete_actions if actions is None else actions
        assert actions is not None
        return self.embed_ids(actions)


def _mean(errors_BT: Tensor, mask: Tensor | None, weights: Tensor | None) -> Tensor:
    """The weighted sum over the number of entries that are not padding."""
    weighted = errors_BT if weights is None else errors_BT * weights
    if mask is None:
        return weighted.mean()
    return (weighted * mask).sum() / mask.sum().clamp(min=1)


def _initialize(module: nn.Module) -> None:
    """GPT-Neo's: normal numbers of deviation 0.02, no bias."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
