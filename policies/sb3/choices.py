"""What action tokens are chosen from, as Stable-Baselines3's algorithms need it.

* :class:`TokenChoices` -- the distribution of a batch of actions, over legal ids alone.

Shapes: B rows, A action tokens, P of them with the same n legal ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.gato.sampling import Sampler, nearest_bins


@dataclass(frozen=True)
class Choice:
    """Neighbouring action positions with the same legal ids.

    Attributes:
        places: The positions.
        logits: float32 ``[B, P, n]``, of what is sampled.
        likeliest: int64 ``[B, P]``, what is chosen without sampling.
    """

    places: range
    logits: Tensor
    likeliest: Tensor

    @classmethod
    def of_scores(
        cls, places: range, scores: Tensor, sampler: Sampler, *, continuous: bool
    ) -> Choice:
        """The choice of a checkpoint's sampler among ids with these scores ``[B, P, n]``.

        A temperature of 0, which never samples, is taken for 1: nothing is learned from one action.
        """
        temperature = sampler.continuous_temperature if continuous else sampler.temperature
        with torch.no_grad():
            flat = scores.flatten(0, 1)
            likeliest = sampler.choose(
                flat, flat.new_zeros(len(flat)), continuous=continuous, deterministic=True
            )
        return cls(places, scores / (temperature or 1.0), likeliest.view(scores.shape[:2]))

    @classmethod
    def around(cls, places: range, numbers: Tensor, deviations: Tensor, count: int) -> Choice:
        """A Gaussian over ``count`` bins on [-1, 1], cut at its ends.

        Args:
            places: The positions.
            numbers: float32 ``[B, P]``, its means.
            deviations: float32 ``[P]``, in the same units.
            count: n.
        """
        centres = (torch.arange(count, device=numbers.device) + 0.5) * (2.0 / count) - 1.0
        distances = (centres - numbers[..., None]) / deviations[:, None]
        return cls(places, -0.5 * distances**2, nearest_bins(numbers.detach(), count))


@dataclass(frozen=True)
class TokenChoices:
    """The distribution of a batch of actions: its tokens are chosen independently.

    Where they are chosen one after another, each is conditioned on those before it.

    Attributes:
        choices: Of all positions, in their order.
    """

    choices: Sequence[Choice]

    def sample(self) -> Tensor:
        """Offsets from the first legal ids: int64 ``[B, A]``."""
        return torch.cat([_sampled(choice.logits) for choice in self.choices], 1)

    def mode(self) -> Tensor:
        """What the checkpoint chooses without sampling: int64 ``[B, A]``."""
        return torch.cat([choice.likeliest for choice in self.choices], 1)

    def log_prob(self, offsets: Tensor) -> Tensor:
        """Logarithm of the probability of actions, int64 ``[B, A]``: float32 ``[B]``."""
        total = torch.zeros(len(offsets), device=offsets.device)
        for choice in self.choices:
            chosen = offsets[:, choice.places.start : choice.places.stop, None]
            total = total + choice.logits.log_softmax(-1).gather(-1, chosen).sum((1, 2))
        return total

    def entropy(self) -> Tensor:
        """Entropy over the legal actions, in nats: float32 ``[B]``."""
        total = torch.zeros(len(self.choices[0].logits), device=self.choices[0].logits.device)
        for choice in self.choices:
            logs = choice.logits.log_softmax(-1)
            total = total - (logs.exp() * logs).sum((1, 2))
        return total


def _sampled(logits: Tensor) -> Tensor:
    """One of each row's last axis."""
    rows = logits.softmax(-1).flatten(0, 1)
    return torch.multinomial(rows, 1).view(logits.shape[:2])
