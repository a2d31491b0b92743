"""Speeds of the shipped network as it acts, each against another way or a limit, in one run.

* :func:`as_shipped` -- ``predict`` with default settings, on a task with 17 numbers to see and 6 to
  choose: against reading the weights that a step uses, against JAT's published network and loop, 64
  rows against one, an episode's start against a step.
* :func:`fresh_processes` -- the first action in a fresh process, and the import.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.comparison import Comparison, compare
from benchmarks.speed.jat import WINDOW, PublishedLoop, filled
from benchmarks.speed.predicting import Stepper, rows_together, starts
from policies.gato.policy import GatoPolicy
from policies.jat.config import JatConfig
from policies.jat.network import JatNetwork
from policies.model.block import Block
from policies.model.network import GatoNetwork

NAME, TASK = "gato-mini", "mujoco-halfcheetah"
BEYOND_CACHES = 2**28
"""Bytes that are read in turn, so that none comes from a processor's cache."""


def as_shipped(
    *, device: torch.device, seconds: float, config: JatConfig | None = None, window: int = WINDOW
) -> Iterator[Comparison]:
    """Every comparison of ``predict``.

    Args:
        device: Where the shipped network acts; JAT acts on a CPU.
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
        config: JAT's sizes; None takes the published ones, with random weights.
        window: Most tokens that JAT keeps.
    """
    policy = GatoPolicy.load(NAME, task=TASK, device=str(device))
    yield over_reading(policy, seconds=seconds)
    yield rows_together(f"{NAME} as shipped", policy, 64, seconds=seconds, limit="at least 16")
    for rows in (1, 64):
        yield starts(f"{NAME} as shipped", policy, rows, seconds=seconds)
    torch.manual_seed(0)
    jat = JatNetwork(config or JatConfig()).eval().requires_grad_(False)
    loop = filled(PublishedLoop(jat, 6, window))
    generator = np.random.default_rng(0)
    for rows, limit in ((1, "at least 30"), (64, "at least 500")):
        yield compare(
            f"{NAME} as shipped over JAT's published loop, rows: {rows}",
            ("JAT's published loop", lambda: loop.step(generator.normal(size=17))),
            ("predict", Stepper(policy, rows).step),
            items=rows,
            slow_items=1,
            seconds=seconds,
            rounds=3,
            limit=limit,
        )


def over_reading(policy: GatoPolicy, *, seconds: float) -> Comparison:
    """``predict`` of one row against reading the weights that it uses once from memory.

    As in :func:`benchmarks.speed.predicting.reading`, half of the bytes are copied; they come from
    another place in memory each time.
    """
    size = sum(weight.nbytes for weight in weights_of_a_step(policy.network, policy))
    half = size // 2
    source, target = (
        torch.ones(BEYOND_CACHES, dtype=torch.uint8, device=policy.device) for _ in range(2)
    )
    firsts = itertools.cycle(range(0, BEYOND_CACHES - half, half))

    def read() -> None:
        first = next(firsts)
        target[first : first + half].copy_(source[first : first + half])
        target[:1].cpu()

    return compare(
        f"{NAME} as shipped: predict of one row, {size / 1e6:.1f} MB of weights",
        ("predict", Stepper(policy, 1).step),
        ("reading the weights", read),
        items=1,
        seconds=seconds,
        rounds=9,
        limit="at most 3",
    )


def weights_of_a_step(network: GatoNetwork, policy: GatoPolicy) -> list[Tensor]:
    """The weights that a step of one vector token without memory uses; rows of tables left out."""
    first, _, second = network.embedding.vector
    heads = network.action_heads
    assert isinstance(first, nn.Linear)
    assert heads.number is not None
    modules = [second, network.backbone.norm, heads.expand, heads.number]
    used = [first.weight[:, : policy.plan.options.vector_size], first.bias]
    for block in network.backbone.blocks:
        assert isinstance(block, Block)
        used.append(block.attention_out.weight)  # times the values' weights: one matrix
        modules += [block.norm_attention, block.norm_feed, block.feed_in, block.feed_out]
    return used + [weight for module in modules for weight in module.state_dict().values()]


FIRST_ACTION = f"""
import numpy as np
from policies import GatoPolicy
GatoPolicy.load({NAME!r}, task={TASK!r}).predict(np.zeros(17))
"""


def fresh_processes(*, rounds: int = 5) -> Iterator[Comparison]:
    """The first action in a fresh process against importing torch, and the import of the package.

    Rates are processes a second of CPU time, which a busy machine hardly lengthens. The name of a
    comparison has the seconds that one process costs beyond the other.

    Args:
        rounds: How many ratios the median is of.
    """
    for name, bare, whole, limit in (
        ("first action", "import torch", FIRST_ACTION, "under 2 s more"),
        ("import policies", "import gymnasium", "import policies", "under 0.3 s more"),
    ):
        times = [(_cpu_seconds(bare), _cpu_seconds(whole)) for _ in range(rounds)]
        more = statistics.median(longer - shorter for shorter, longer in times)
        title = f"{name} in a fresh process: {more:.2f} s more"
        rates = [(1 / shorter, 1 / longer) for shorter, longer in times]
        yield Comparison.of(title, bare, name, rates, limit)


def _cpu_seconds(code: str) -> float:
    """CPU seconds of a fresh process that runs this code."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    spent = after.children_user + after.children_system
    return spent - before.children_user - before.children_system
