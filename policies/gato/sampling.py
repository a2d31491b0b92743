"""From logits over legal ids to a choice.

* :class:`Sampler` -- temperature, and the deterministic choice of continuous values.
* :func:`nearest_bins` -- the bins of numbers.
* :func:`mixed_numbers` -- numbers moved towards retrieved ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CONTINUOUS_MODES = ("mode", "mean", "peak")

PEAK = 16
"""A peak spans one PEAK-th of the bins to either side: 64 of 1024."""


@dataclass(frozen=True)
class Sampler:
    """How a choice is made at one action position.

    Attributes:
        temperature: Divides the logits of discrete choices when sampling; above 0.
        continuous_temperature: The temperature of continuous values, whose labels were spread over
            neighbouring bins in training; 0 never samples them.
        continuous: The deterministic choice for a continuous value: the most likely bin ("mode"),
            the bin of the expected value ("mean"), or the expected value within the most likely
            eighth of the bins ("peak"), which does not settle between two ways to act.
        top_p: Sampled discrete choices are among the likeliest whose probabilities reach this sum,
            in (0, 1]; 1 leaves all.
    """

    temperature: float = 1.0
    continuous_temperature: float = 1.0
    continuous: str = "mean"
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"temperature is {self.temperature}: expected more than 0 "
                "(deterministic=True picks the most likely action)"
            )
        if not self.continuous_temperature >= 0:
            raise ValueError(
                f"continuous_temperature is {self.continuous_temperature}: expected 0 or more"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: expected more than 0 and at most 1 (all)")
        if self.continuous not in CONTINUOUS_MODES:
            raise ValueError(
                f"continuous is {self.continuous!r}: choose one of {', '.join(CONTINUOUS_MODES)}"
            )

    def choose(
        self,
        logits: Tensor,
        uniforms: Tensor,
        *,
        continuous: bool,
        deterministic: bool,
        retrieved: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Choose one id a row.

        Args:
            logits: float32 ``[B, n]`` over the legal ids alone: none other can be chosen.
            uniforms: float32 ``[B]`` in [0, 1), the random number of each row.
            continuous: Whether the ids are bins of a value.
            deterministic: No sampling.
            retrieved: Ids int64 ``[B]`` in ``[0, n)`` that have a share of the probability, and
                their shares, float32 ``[B]``; the choice is then of the mixture.

        Returns:
            int64 ``[B]`` in ``[0, n)``.
        """
        if deterministic or (continuous and self.continuous_temperature == 0):
            scores = logits if retrieved is None else _mixed(logits.softmax(1), retrieved)
            if continuous and self.continuous != "mode":
                probabilities = logits.softmax(1) if retrieved is None else scores
                return _expected_bin(probabilities, peak=self.continuous == "peak")
            return scores.argmax(1)
        temperature = self.continuous_temperature if continuous else self.temperature
        probabilities = (logits / temperature).softmax(1)
        if self.top_p < 1 and not continuous:
            probabilities = _likeliest(probabilities, self.top_p)
        if retrieved is not None:
            probabilities = _mixed(probabilities, retrieved)
        cumulative = probabilities.cumsum(1)
        threshold = uniforms[:, None] * cumulative[:, -1:]
        return (cumulative <= threshold).sum(1).clamp(max=logits.shape[1] - 1)


def _mixed(probabilities: Tensor, retrieved: tuple[Tensor, Tensor]) -> Tensor:
    """The mixture ``[B, n]`` with the shares of the retrieved ids, as :meth:`Sampler.choose` has
    them."""
    ids, shares = retrieved
    network = (1 - shares)[:, None] * probabilities / probabilities.sum(1, keepdim=True)
    return network.scatter_add(1, ids[:, None], shares[:, None])


def mixed_numbers(numbers: Tensor, count: int, retrieved: tuple[Tensor, Tensor]) -> Tensor:
    """The mean of the mixture of numbers ``[B]`` in [-1, 1] with those of the retrieved bins."""
    ids, shares = retrieved
    centres = (ids + 0.5) * (2 / count) - 1
    return shares * centres + (1 - shares) * numbers.clamp(-1.0, 1.0)


def _likeliest(probabilities: Tensor, top_p: float) -> Tensor:
    """Probabilities ``[B, n]`` with all but the likeliest, whose sum reaches ``top_p``, at zero."""
    ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
    kept = ordered.cumsum(1) - ordered < top_p
    return torch.zeros_like(probabilities).scatter(1, order, ordered * kept)


def _expected_bin(probabilities: Tensor, *, peak: bool) -> Tensor:
    """The bin of the expected value ``[B]`` of probabilities ``[B, n]``.

    Args:
        probabilities: The probability of each bin.
        peak: Whether only bins near the most likely place count.
    """
    bins = torch.arange(
        probabilities.shape[1], device=probabilities.device, dtype=probabilities.dtype
    )
    if peak:
        reach = max(1, len(bins) // PEAK)
        padded = torch.nn.functional.pad(probabilities.cumsum(1), (reach + 1, 0))
        padded = torch.nn.functional.pad(padded, (0, reach), mode="replicate")
        mass = padded[:, 2 * reach + 1 :] - padded[:, : len(bins)]
        centre = mass.argmax(1)
        probabilities = probabilities * ((bins - centre[:, None]).abs() <= reach)
    return (probabilities @ bins / probabilities.sum(1)).round().long()


def nearest_bins(numbers: Tensor, count: int) -> Tensor:
    """The bin of each number, of ``count`` equal ones on [-1, 1]: int64, the numbers' shape."""
    return ((numbers.clamp(-1.0, 1.0) + 1.0) * (count / 2)).long().clamp(max=count - 1)
