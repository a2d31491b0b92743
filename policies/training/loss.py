"""The loss of a packed batch, and what is reported beside it.

* :func:`batch_loss` -- of a packed batch: actions, and next observations where they are asked for.
* :func:`action_loss` -- cross-entropy over each position's legal ids, against what the expert chose
  from where that is known; continuous labels are spread over neighbouring bins, or regressed.
* :func:`text_loss` -- cross-entropy over all pieces of text and the separator.
* :func:`loss_scale` -- what it is divided by, known before the forward pass.
* :func:`mean_losses` -- of batches that are not trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from policies.model.choices import choice_losses
from policies.model.config import NetworkConfig
from policies.model.network import GatoNetwork, PackedBatch, Targets
from policies.training.config import TrainConfig


@dataclass
class LossReport:
    """One batch's loss.

    Attributes:
        total: Scalar, with gradient: the weighted sum over all targets.
        scale: Scalar: the sum of the weights; ``total / scale`` is the loss.
        sums: float32 ``[9]``: of discrete tokens the weight, weighted loss and weighted hits; of
            continuous tokens the weight, weighted loss and weighted absolute error of the value
            expected (in [-1, 1] units); of texts' tokens the weight, weighted loss and weighted
            hits.
        tasks: float32 ``[tasks, 2]``: of the tokens of each task, and of each source of texts, the
            weight and the weighted loss.
    """

    total: Tensor
    scale: Tensor
    sums: Tensor
    tasks: Tensor


REGRESSION_SCALE = 0.1
"""Error of a regressed action, in [-1, 1] units, up to which its loss is quadratic: 0.5 there."""


def spread_labels(bins: Tensor, count: int, sigma: float | Tensor) -> Tensor:
    """A Gaussian over bins around each label, cut at the edges and normalised.

    Args:
        bins: int64 ``[N]``, labels in ``[0, count)``.
        count: Number of bins.
        sigma: Standard deviation in bins; 0 is one-hot. float32 ``[N]`` above 0 for one a label.

    Returns:
        float32 ``[N, count]``.
    """
    if isinstance(sigma, float | int) and sigma == 0:
        return F.one_hot(bins, count).float()
    distance = torch.arange(count, device=bins.device) - bins[:, None]
    spread = sigma[:, None] if isinstance(sigma, Tensor) else sigma
    return torch.softmax(-0.5 * (distance / spread) ** 2, dim=1)


def batch_loss(
    network: GatoNetwork,
    hidden: Tensor,
    batch: PackedBatch,
    config: TrainConfig,
    *,
    tasks: int = 0,
) -> LossReport:
    """The loss of a packed batch, each part of it weighed as configured.

    Args:
        network: Gives the logits.
        hidden: float ``[B, T, D]``, the network's output.
        batch: Holds the targets.
        config: Weighs the parts.
        tasks: As in :func:`action_loss`.
    """
    targets, is_text = batch.targets, text_targets(network.config, batch.targets)
    mixed = bool(is_text.any())
    report = action_loss(
        network,
        hidden,
        targets.at(~is_text) if mixed else targets,
        sigma=config.sigma,
        balance=config.balance,
        tasks=tasks,
    )
    if mixed:
        said = text_loss(network, hidden, targets.at(is_text), tasks=tasks)
        report = LossReport(
            report.total + said.total,
            report.scale + said.scale,
            report.sums + said.sums,
            report.tasks + said.tasks,
        )
    share = config.observation_weight
    if share:
        total = (1 - share) * report.total + share * observation_loss(network, hidden, batch)
        report = dataclasses.replace(report, total=total)
    return report


def observation_loss(network: GatoNetwork, hidden: Tensor, batch: PackedBatch) -> Tensor:
    """Scalar: the sum over timesteps of how wrong the next observation is said.

    A timestep counts as much as its actions do, which have the weight 1 together; its parts have
    equal weights. As in JAT (arXiv 2402.09844) numbers have the mean squared error; symbols, of
    which JAT predicts none, have the cross-entropy.
    """
    heads, embedding = network.observation_heads, network.embedding
    if heads is None:
        raise ValueError("the network has no observation_heads: configure it with them")
    flat, vocabulary = hidden.flatten(0, 1), network.config.vocabulary
    first = vocabulary.text.stop
    total = hidden.new_zeros((), dtype=torch.float32)
    for kind, parts in batch.next_parts.items():
        x = flat[parts.slots] + embedding.place(parts.local_positions)
        values = parts.values - first if kind == "ids" else parts.values
        losses = heads.losses(
            kind, x, values, lambda h: network.symbol_logits(h, first, vocabulary.size)
        )
        total = total + (losses * parts.weights).sum()
    return total


def text_targets(config: NetworkConfig, targets: Targets) -> Tensor:
    """bool ``[N]``: which targets are pieces of texts, or the separator that ends one."""
    text, ids = config.vocabulary.text, targets.ids
    return ((ids >= text.start) & (ids < text.stop)) | (ids == config.vocabulary.separator)


def text_loss(
    network: GatoNetwork, hidden: Tensor, targets: Targets, *, tasks: int = 0
) -> LossReport:
    """The loss of texts' tokens: logits of the whole vocabulary of text, at these positions alone.

    Args:
        network: Gives the logits.
        hidden: float ``[B, T, D]``, the network's output.
        targets: Targets of texts, one or more, see :func:`text_targets`.
        tasks: As in :func:`action_loss`.
    """
    text = network.config.vocabulary.text
    logits = network.writing_logits(hidden.flatten(0, 1)[targets.slots])
    labels = torch.where(targets.ids < text.stop, targets.ids - text.start, logits.shape[1] - 1)
    losses = F.cross_entropy(logits, labels, reduction="none")
    weight, sums = targets.weights, hidden.new_zeros(9)
    total = (losses * weight).sum()
    with torch.no_grad():
        hits = (logits.argmax(1) == labels).float()
        sums[6:] = torch.stack([weight.sum(), total.detach(), (hits * weight).sum()])
        by_task = torch.zeros(tasks, 2, device=hidden.device)
        if tasks:
            both = torch.stack([weight, losses * weight], dim=1).float()
            by_task.index_add_(0, targets.tasks, both)
    return LossReport(total, weight.sum(), sums, by_task)


def action_loss(
    network: GatoNetwork,
    hidden: Tensor,
    targets: Targets,
    *,
    sigma: float,
    balance: float = 1.0,
    tasks: int = 0,
) -> LossReport:
    """The loss of action tokens.

    Args:
        network: Gives the logits.
        hidden: float ``[B, T, D]``, the network's output.
        targets: What each predicting position should say; none of a text.
        sigma: Spread of continuous labels, in bins.
        balance: Weight of continuous tokens against discrete ones.
        tasks: How many there are; 0 reports none of them on its own.
    """
    vocabulary = network.config.vocabulary
    flat = hidden.flatten(0, 1)
    is_value = (targets.ids >= vocabulary.continuous.start) & (
        targets.ids < vocabulary.continuous.stop
    )
    sums = hidden.new_zeros(9)
    total = hidden.new_zeros(())
    by_task = torch.zeros(tasks, 2, device=hidden.device)
    for continuous in (False, True):
        chosen = (is_value if continuous else ~is_value).nonzero()[:, 0]
        if not chosen.numel():
            continue
        weight, soft = targets.weights[chosen], targets.soft[chosen]
        slots, owners = targets.slots[chosen].unique_consecutive(return_inverse=True)
        predicted = (flat[slots], owners, targets.places[chosen])
        start = (vocabulary.continuous if continuous else vocabulary.discrete).start
        labels = targets.ids[chosen] - start
        if continuous:
            losses, score = continuous_losses(network, predicted, labels, soft, sigma=sigma)
        else:
            stops = targets.stops[chosen]
            vectors = network.action_heads.at_places(*predicted)
            logits = network.symbol_logits(vectors, start, int(stops.max()))
            legal = torch.arange(start, int(stops.max()), device=flat.device) < stops[:, None]
            logits = logits.masked_fill(~legal, float("-inf"))
            losses = choice_losses(logits, labels, soft)
            with torch.no_grad():
                score = (logits.argmax(1) == labels).float()
        factor = balance if continuous else 1.0
        total = total + factor * (losses * weight).sum()
        offset = 3 if continuous else 0
        with torch.no_grad():
            parts = [weight.sum(), (losses * weight).sum(), (score * weight).sum()]
            sums[offset : offset + 3] = torch.stack(parts)
            if tasks:
                both = torch.stack([weight, losses * weight], dim=1).float()
                by_task.index_add_(0, targets.tasks[chosen], both)
    scale = loss_scale(network.config, targets, balance=balance)
    return LossReport(total, scale, sums, by_task)


def continuous_losses(
    network: GatoNetwork,
    predicted: tuple[Tensor, Tensor, Tensor],
    labels: Tensor,
    soft: Tensor,
    *,
    sigma: float,
) -> tuple[Tensor, Tensor]:
    """Losses of continuous action tokens, and how far off what is expected of them is.

    Bins have the cross-entropy against labels that are spread by ``sigma``, or by the expert's own
    deviation where it is larger. A regressed number has Huber's loss.

    Args:
        network: Gives the logits, or the number.
        predicted: Hidden vectors, owners and places, as
            :class:`~policies.model.action_heads.ActionHeads` takes them.
        labels: int64 ``[N]``, bins.
        soft: As :class:`~policies.model.network.Targets` has it.
        sigma: Spread of the labels, in bins.

    Returns:
        float32 ``[N]`` each; the error is in [-1, 1] units.
    """
    ids = network.config.vocabulary.continuous
    bins = len(ids)
    centres = (torch.arange(bins, device=labels.device) + 0.5) * (2.0 / bins) - 1.0
    if network.config.continuous_head == "regression":
        numbers = network.action_heads.numbers(*predicted)
        misses = numbers - centres[labels]
        losses = F.huber_loss(misses / REGRESSION_SCALE, torch.zeros_like(misses), reduction="none")
        return losses, (numbers.detach().clamp(-1, 1) - centres[labels]).abs()
    spread: float | Tensor = sigma
    if soft.shape[1]:
        spread = (soft[:, 0] * (bins / 2)).clamp(min=max(sigma, 1e-3))
    logits = network.symbol_logits(network.action_heads.at_places(*predicted), ids.start, ids.stop)
    losses = F.cross_entropy(logits, spread_labels(labels, bins, spread), reduction="none")
    with torch.no_grad():
        misses = (logits.softmax(1) @ centres - centres[labels]).abs()
    return losses, misses


def loss_scale(config: NetworkConfig, targets: Targets, *, balance: float = 1.0) -> Tensor:
    """Scalar: the sum of a batch's weights, by which its loss is divided."""
    values = config.vocabulary.continuous
    is_value = (targets.ids >= values.start) & (targets.ids < values.stop)
    return (targets.weights * torch.where(is_value, balance, 1.0)).sum()


@torch.no_grad()
def mean_losses(
    network: GatoNetwork, batches: Iterable[PackedBatch], *, sigma: float, balance: float = 1.0
) -> dict[str, float]:
    """Mean loss of some batches, and of each kind of actions its loss and accuracy or error.

    Args:
        network: Evaluated, and left in training mode.
        batches: At least one, of tasks alone.
        sigma: Spread of continuous labels, in bins.
        balance: Weight of continuous tokens against discrete ones.
    """
    network.eval()
    total, scale, sums = 0.0, 0.0, torch.zeros(9, dtype=torch.float64)
    for batch in batches:
        hidden = network(batch)
        report = action_loss(network, hidden, batch.targets, sigma=sigma, balance=balance)
        total, scale = total + float(report.total), scale + float(report.scale)
        sums += report.sums
    network.train()
    losses = {"loss": total / scale}
    for kind, at, what in (("discrete", 0, "accuracy"), ("continuous", 3, "error")):
        if sums[at]:
            losses[f"{kind}_loss"] = float(sums[at + 1] / sums[at])
            losses[f"{kind}_{what}"] = float(sums[at + 2] / sums[at])
    return losses
