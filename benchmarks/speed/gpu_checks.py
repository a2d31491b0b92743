"""Whether a device computes what it should, each way against another.

* :class:`Check` -- one difference, and the largest that is right.
* :func:`cached_against_full`, :func:`compiled_against_plain` -- steps of a network.
* :func:`compiled_training_against_plain` -- whole sequences through compiled blocks.
* :func:`attention_against_float64` -- the attention of training, forward and backward.
* :func:`losses_against_cpu` -- a training run.

Shapes: B rows, T tokens, D width, H heads, K head size.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.training import make_trainer, write_episodes
from policies.model.attention import TokenRoles, attend, mask_for
from policies.model.config import preset
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork, inference
from policies.model.quantization import with_precision
from policies.model.transformer import compile_blocks

CPU = torch.device("cpu")
WINDOW = 16
"""Tokens that a step sees; episodes are three times as long, so that the cache goes round."""

LARGEST = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference from what is right, in the largest value's size."""


@dataclass(frozen=True)
class Check:
    """A difference between two ways to compute the same.

    Attributes:
        name: What is compared.
        error: The difference.
        largest: The largest that is right.
    """

    name: str
    error: float
    largest: float

    @property
    def holds(self) -> bool:
        """Whether the difference is small enough; NaN never is."""
        return self.error <= self.largest


def cached_against_full(name: str, *, device: torch.device) -> Iterator[Check]:
    """Steps with the cache against whole sequences, of random weights.

    In bfloat16 both are compared with whole sequences in float32: steps may be off twice as far.

    Args:
        name: A preset.
        device: The device that is checked.
    """
    network, x_BTD = _random_network(name, device)
    exact = _full(network, x_BTD)
    yield Check(f"{name}: cached, float32", _difference(_cached(network, x_BTD), exact), 1e-4)
    for narrow in _narrow(network):
        error, usual = (
            _difference(hidden, exact) for hidden in (_cached(narrow, x_BTD), _full(narrow, x_BTD))
        )
        yield Check(f"{name}: cached, bfloat16", error, 2 * usual)


def compiled_against_plain(name: str, *, device: torch.device) -> Iterator[Check]:
    """Compiled steps, on a GPU recorded ones, against those that are done as they come.

    In bfloat16 both are compared with whole sequences in float32: compiled steps may be off twice
    as far. Arguments as in :func:`cached_against_full`.
    """
    network, x_BTD = _random_network(name, device)
    exact = _full(network, x_BTD)
    plain = _cached(network, x_BTD)
    compiled = _cached(network, x_BTD, compiled=True)
    yield Check(f"{name}: compiled, float32", _difference(compiled, plain), 1e-4)
    for narrow in _narrow(network):
        error, usual = (
            _difference(_cached(narrow, x_BTD, compiled=way), exact) for way in (True, False)
        )
        yield Check(f"{name}: compiled, bfloat16", error, 2 * usual)


def compiled_training_against_plain(name: str, *, device: torch.device) -> Iterator[Check]:
    """Whole packed sequences through blocks that are compiled for training, and their gradients.

    In float32, and under autocast as training in bfloat16 is. The plain blocks have dense
    attention, which takes no compiling. Differences are in the largest value's size. Arguments as
    in :func:`cached_against_full`.
    """
    length = 256
    roles = packed_roles(2, length).to(device)
    for dtype in LARGEST:
        parts = []
        for way in (False, True):
            network, _ = _random_network(name, device)
            network.train().requires_grad_(True)
            if way:
                compile_blocks(network.backbone)
            else:
                network.backbone.attention = "dense"
            torch.manual_seed(1)
            x_BTD = torch.randn(2, length, network.config.width, device=device)
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                mask = network.backbone.visibility(roles)
                output = network.backbone(x_BTD, roles.positions, mask)
            output.float().square().mean().backward()
            gradients = [p.grad for p in network.backbone.parameters() if p.grad is not None]
            parts.append((output.detach().float(), torch.cat([g.flatten() for g in gradients])))
        title = f"{name}: compiled training, {str(dtype).split('.')[1]}"
        for what, plain, compiled in zip(("forward", "gradients"), *parts, strict=True):
            error = _difference(compiled, plain) / float(plain.abs().max())
            yield Check(f"{title}: {what}", error, LARGEST[dtype])


def attention_against_float64(
    *, device: torch.device, length: int, heads: int, size: int
) -> Iterator[Check]:
    """Attention over packed documents and its gradients against dense attention in float64.

    A CPU, where FlexAttention cannot be trained, has its dense attention compared.

    Args:
        device: The device that is checked.
        length: T.
        heads: H.
        size: K.
    """
    generator = torch.Generator().manual_seed(0)
    shape = 2, heads, length, size
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]
    roles = packed_roles(2, length).to(device)
    ways = [("dense", torch.float32)]
    if device.type != "cpu":
        ways += [("flex", torch.float32), ("flex", torch.bfloat16)]
    for attention, dtype in ways:
        parts = [each.to(device, dtype) for each in drawn]
        exact = _attended([each.double() for each in parts], roles, "dense")
        for what, actual, expected in zip(
            ("forward", "queries' gradient", "keys' gradient", "values' gradient"),
            _attended(parts, roles, attention),
            exact,
            strict=True,
        ):
            error = _difference(actual, expected) / float(expected.abs().max())
            title = f"{attention} attention, {str(dtype).split('.')[1]}: {what}"
            yield Check(title, error, LARGEST[dtype])


def packed_roles(rows: int, length: int) -> TokenRoles:
    """Roles of documents of random lengths, with prompts, actions and all memories."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.rand(rows, length, generator=generator) < 8 / length
    documents = starts.long().cumsum(1)
    order = torch.arange(length).expand(rows, -1)
    first = torch.where(starts, order, 0).cummax(1).values
    positions = order - first
    return TokenRoles(
        documents=documents,
        positions=positions,
        timesteps=positions // 5,
        actions=(positions % 5 > 2).long(),
        prompts=(positions < 10).long(),
        memories=documents % 3,
    )


def losses_against_cpu(
    name: str, folder: Path, *, device: torch.device, steps: int
) -> Iterator[Check]:
    """Losses of a training run against those of the same run on a CPU, in float32.

    The first tenth of the run is compared step by step, the rest by means of a tenth of it: small
    differences grow. On a GPU a run in bfloat16 follows.

    Args:
        name: A preset.
        folder: For shards and runs.
        device: The device that is checked.
        steps: Updates of the run.
    """
    exact = _losses(name, folder / "cpu", CPU, "float32", steps)
    tenth = max(1, steps // 10)
    precisions = {"float32": (1e-3, 0.01), "bfloat16": (0.02, 0.05)}
    for precision in tuple(precisions)[: 1 if device.type == "cpu" else 2]:
        early, late = precisions[precision]
        losses = _losses(name, folder / precision, device, precision, steps)
        title = f"{name}: {precision} losses of"
        yield Check(f"{title} {tenth} steps", _apart(losses[:tenth], exact[:tenth]), early)
        means = [
            each[: tenth * (steps // tenth)].view(-1, tenth).mean(1) for each in (losses, exact)
        ]
        yield Check(f"{title} {steps} steps, means of {tenth}", _apart(*means), late)


def _losses(name: str, folder: Path, device: torch.device, precision: str, steps: int) -> Tensor:
    shard = write_episodes(folder, episodes=4)
    run = folder / "run"
    trainer = make_trainer(name, shard, run, device=device, batch=(4, 128), precision=precision)
    with trainer.batches:
        reports = [trainer.update()[0] for _ in range(steps)]
    return torch.stack([report.total / report.scale for report in reports])


def _apart(losses: Tensor, exact: Tensor) -> float:
    """The largest difference, in the size of the exact ones."""
    return float(((losses - exact).abs() / exact.abs()).max())


def _random_network(name: str, device: torch.device) -> tuple[GatoNetwork, Tensor]:
    """A network with random weights, and the embeddings of two episodes."""
    torch.manual_seed(0)
    config = dataclasses.replace(preset(name), window=WINDOW)
    network = inference(GatoNetwork(config)).to(device)
    return network, torch.randn(2, 3 * WINDOW, config.width).to(device)


def _narrow(network: GatoNetwork) -> Iterator[GatoNetwork]:
    """The network in bfloat16, where it is on a GPU."""
    if network.head.weight.device.type != "cpu":
        yield with_precision(copy.deepcopy(network), "bfloat16")


@torch.inference_mode()
def _full(network: GatoNetwork, x_BTD: Tensor) -> Tensor:
    rows, length, _ = x_BTD.shape
    order = torch.arange(length, device=x_BTD.device)
    apart = order[:, None] - order
    mask = ((apart >= 0) & (apart < WINDOW))[None, None]
    positions_BT = (network.config.prompt_tokens + order).expand(rows, -1)
    return network.backbone(x_BTD.to(network.head.weight.dtype), positions_BT, mask)


@torch.inference_mode()
def _cached(network: GatoNetwork, x_BTD: Tensor, *, compiled: bool = False) -> Tensor:
    """Hidden vectors of the same tokens, one timestep after another."""
    config, (batch, length, _) = network.config, x_BTD.shape
    network.backbone.compiled = compiled
    like = network.head.weight
    cache = RingCache.empty(config, rows=batch, ring=WINDOW + 1, pinned=0, like=like)
    rows = np.arange(batch)
    hidden = [
        network.step(x_BTD[:, t], rows, np.full(batch, config.prompt_tokens + t), cache)
        for t in range(length)
    ]
    return torch.stack(hidden, 1)


def _attended(parts: Sequence[Tensor], roles: TokenRoles, attention: str) -> list[Tensor]:
    """The output, and the gradients of queries, keys and values for that of the output."""
    *inputs, gradient = (part.detach() for part in parts)
    q_BHTK, k_BHTK, v_BHTK = (each.requires_grad_() for each in inputs)
    length = q_BHTK.shape[2]
    mask = mask_for(roles, length // 4, attention=attention)
    output = attend(q_BHTK, k_BHTK, v_BHTK, mask)
    return [output.detach(), *torch.autograd.grad(output, (q_BHTK, k_BHTK, v_BHTK), gradient)]


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())
