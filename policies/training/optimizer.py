"""Optimiser, schedule and averaged weights.

* :class:`OptimiserConfig`, :func:`published` -- their settings, and those that Gato had.
* :class:`Optimiser` -- Muon for the backbone's matrices, AdamW for everything else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gato_gym.ranges import check_range
from policies.training.distributed import ProcessGroup, ShardedParameter


@dataclass(frozen=True)
class OptimiserConfig:
    """Settings of the optimiser.

    Attributes:
        name: "muon" (Muon on the backbone's matrices, AdamW on the rest) or "adamw", as published.
        rate: Peak learning rate of AdamW.
        matrix_rate: Peak learning rate of Muon.
        betas: AdamW's.
        decay: Weight decay of matrices.
        warmup: Steps to the peak.
        cooldown: linear: share of all steps, at the end, in which the rate falls to 0.
        clip: Largest norm of the gradient.
        average: Decay of the exponential moving average of the weights.
        shape: "linear": constant, then a linear fall to 0; or "cosine": a half wave from the
            peak to ``last``.
        first: Share of the peak at which the warm-up starts.
        last: cosine: share of the peak at the last step.
    """

    name: str = "muon"
    rate: float = 2e-3
    matrix_rate: float = 4e-3
    betas: tuple[float, float] = (0.9, 0.95)
    decay: float = 0.05
    warmup: int = 100
    cooldown: float = 0.4
    clip: float = 1.0
    average: float = 0.995
    shape: str = "linear"
    first: float = 0.0
    last: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("muon", "adamw"):
            raise ValueError(f"optimiser {self.name!r} is unknown: choose muon or adamw")
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"schedule {self.shape!r} is unknown: choose linear or cosine")
        check_range(self, "rate", "matrix_rate", "clip", above=True)
        check_range(self, "decay", "warmup")
        check_range(self, "betas", "cooldown", "average", "first", "last", high=1)


def published() -> OptimiserConfig:
    """AdamW as Gato was trained with it (arXiv 2205.06175, appendix D).

    1e-7 to 1e-4 in 15,000 steps, then a cosine to a tenth at the run's end (1M steps there), betas
    0.9 and 0.95, weight decay 0.1.
    """
    return OptimiserConfig(
        name="adamw", rate=1e-4, decay=0.1, warmup=15_000, shape="cosine", first=1e-3, last=0.1
    )


def schedule(step: int, total: int, config: OptimiserConfig) -> float:
    """Share of the peak rate at ``step``: linear warm-up, then the shape that is configured."""
    rise = (step + 1) / max(1, config.warmup)
    up = min(1.0, config.first + (1 - config.first) * rise)
    if config.shape == "linear":
        left = (total - step) / max(1.0, config.cooldown * total)
        return min(up, left, 1.0)
    done = (step + 1 - config.warmup) / max(1, total - config.warmup)
    wave = (1 + math.cos(math.pi * min(1.0, max(0.0, done)))) / 2
    return min(up, config.last + (1 - config.last) * wave)


def orthogonalise(matrices: Tensor, steps: int = 5, *, half: bool = False) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly, by a quintic Newton-Schulz iteration.

    Coefficients from https://kellerjordan.github.io/posts/muon/. A GPU iterates in bfloat16, as
    ``torch.optim.Muon`` does; a CPU only if it is asked to, because without bfloat16 units it would
    take several times as long.

    Args:
        matrices: float ``[..., M, N]``.
        steps: Iterations.
        half: Whether a CPU iterates in bfloat16, too.

    Returns:
        As they are.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    x = x.bfloat16() if half or x.device.type == "cuda" else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, matrix by matrix, with decoupled weight decay.

    Args:
        params: What this process holds of each matrix.
        lr: Learning rate; the update's RMS is ``0.2 * lr`` times the square root of the larger side
            over the root of the matrix's rank, as in arXiv 2502.16982.
        momentum: Decay of the gradient's average (Nesterov's form).
        weight_decay: Decoupled.
        stacked: Number of matrices stacked along the first axis, by parameter's ``id``.
        parts: The way from what is held to the whole matrix, by parameter's ``id``.
        half: As :func:`orthogonalise` takes it.
    """

    def __init__(
        self,
        params: list[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        stacked: dict[int, int],
        parts: dict[int, ShardedParameter],
        half: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.stacked, self.parts, self.half = stacked, parts, half

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient; those of a shape are orthogonalised together."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            chunks = [self._chunks(parameter, group["momentum"]) for parameter in parameters]
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for chunk in itertools.chain.from_iterable(chunks):
                by_shape.setdefault(chunk.shape, []).append(chunk)
            updates = {
                shape: iter(
                    orthogonalise(torch.stack(alike), half=self.half) * 0.2 * max(shape) ** 0.5
                )
                for shape, alike in by_shape.items()
            }
            for parameter, parts in zip(parameters, chunks, strict=True):
                whole = torch.cat([next(updates[part.shape]) for part in parts])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(self.parts[id(parameter)].rows(whole), alpha=-group["lr"])

    def _chunks(self, parameter: nn.Parameter, momentum: float) -> Sequence[Tensor]:
        """The matrices that are stacked in a parameter: what is to be orthogonalised of each."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)
        whole = self.parts[id(parameter)].whole(gradient.lerp(buffer, momentum))
        return whole.chunk(self.stacked.get(id(parameter), 1))


class Optimiser:
    """Steps a network's weights and keeps their moving average.

    Where the network is divided among processes, each steps the part that it holds.

    Args:
        network: The network.
        config: Settings.
        total: Steps of the whole run, for the schedule.
        ranks: The processes.
        backbone: What the names of the matrices that Muon steps begin with.
        half: Whether a CPU multiplies them in bfloat16, too.

    Attributes:
        parts: What this process holds of each parameter, by name.
        average: The moving average of that.
        fused: Whether AdamW is a few large kernels, as on a GPU.
    """

    def __init__(
        self,
        network: nn.Module,
        config: OptimiserConfig,
        *,
        total: int,
        ranks: ProcessGroup | None = None,
        backbone: str = "backbone.",
        half: bool = False,
    ) -> None:
        self.config, self.total, self.ranks = config, total, ranks or ProcessGroup()
        self.parts = {name: ShardedParameter(p) for name, p in network.named_parameters()}
        named = {name: part.held for name, part in self.parts.items()}
        matrices = {
            n
            for n, p in named.items()
            if config.name == "muon" and n.startswith(backbone) and p.ndim == 2
        }
        decayed = [p for n, p in named.items() if n not in matrices and p.ndim >= 2]
        plain = [p for n, p in named.items() if n not in matrices and p.ndim < 2]
        self.fused = next(iter(named.values())).device.type == "cuda"
        self.steppers: list[tuple[torch.optim.Optimizer, float]] = [
            (
                torch.optim.AdamW(
                    [
                        {"params": decayed, "weight_decay": config.decay},
                        {"params": plain, "weight_decay": 0.0},
                    ],
                    lr=config.rate,
                    betas=config.betas,
                    eps=1e-8,
                    fused=self.fused or None,  # None: as PyTorch chooses
                ),
                config.rate,
            )
        ]
        if matrices:
            stacked = {"qkv.weight": 3, "feed_in.weight": 2}
            muon = Muon(
                [named[n] for n in sorted(matrices)],
                lr=config.matrix_rate,
                momentum=0.95,
                weight_decay=config.decay,
                stacked={
                    id(named[n]): count
                    for n in matrices
                    for ending, count in stacked.items()
                    if n.endswith(ending)
                },
                parts={id(named[n]): self.parts[n] for n in matrices},
                half=half,
            )
            self.steppers.append((muon, config.matrix_rate))
        self.average = {n: p.detach().clone() for n, p in named.items()}

    def clip(self) -> Tensor:
        """Sum the gradient over all processes and shorten it to the largest norm.

        Returns:
            Scalar: the norm of the whole network's gradient before.
        """
        kept = [part for part in self.parts.values() if not part.divided]
        self.ranks.sum_gradients([part.held for part in kept])
        norm = _norm(kept)
        if divided := [part for part in self.parts.values() if part.divided]:
            for part in divided:
                part.take_gradient()
            norm = (norm**2 + self.ranks.sum(_norm(divided) ** 2)).sqrt()
        held = [part.held for part in self.parts.values()]
        nn.utils.clip_grads_with_norm_(held, self.config.clip, norm)
        return norm

    def step(self, step: int) -> None:
        """Update the weights by their gradients, and their average."""
        share = schedule(step, self.total, self.config)
        for optimiser, rate in self.steppers:
            for group in optimiser.param_groups:
                group["lr"] = rate * share
            optimiser.step()
        for part in self.parts.values():
            part.drop_gradient()
        decay = min(self.config.average, (step + 1) / (step + 10))
        held: list[Tensor] = [part.held for part in self.parts.values()]
        with torch.no_grad():
            torch._foreach_lerp_([self.average[name] for name in self.parts], held, 1 - decay)

    def averages(self) -> Iterator[tuple[str, Tensor]]:
        """The averaged weights by name, whole; with a divided network every process iterates."""
        for name, part in self.parts.items():
            yield name, part.whole(self.average[name])

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The state by name, whole; with a divided network every process iterates."""
        for name, tensor in self.averages():
            yield f"average.{name}", tensor
        for name, part in self.parts.items():
            for key, value in self._state_of(part).items():
                tensor = value if isinstance(value, Tensor) else torch.tensor(float(value))
                whole = part.whole(tensor) if tensor.shape == part.held.shape else tensor
                yield f"state.{key}.{name}", whole

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up the state that :meth:`tensors` gave."""
        for name, part in self.parts.items():
            self.average[name].copy_(part.rows(tensors[f"average.{name}"]))
            for key in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer"):
                value = tensors.get(f"state.{key}.{name}")
                if value is not None:
                    place = "cpu" if key == "step" and not self.fused else part.held.device
                    shard = value if key == "step" else part.rows(value)
                    self._state_of(part)[key] = shard.clone().to(place)

    def _state_of(self, part: ShardedParameter) -> dict[str, Any]:
        """What the optimiser that steps this part remembers of it."""
        matrices = self.steppers[-1][0]
        index = -1 if isinstance(matrices, Muon) and id(part.held) in matrices.parts else 0
        return self.steppers[index][0].state[part.held]


def _norm(parts: Sequence[ShardedParameter]) -> Tensor:
    return nn.utils.get_total_norm([p.held.grad for p in parts if p.held.grad is not None])
