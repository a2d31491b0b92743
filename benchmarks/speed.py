"""Ratios of speeds, both sides measured in one run: ``python -m benchmarks.speed``.

* :class:`Comparison` -- two ways to do the same work, and how much faster one is.
* :func:`compare` -- times them in turn.
* :func:`tokenising` -- a batch of observations at once against one by one.
* :func:`predicting` -- the cache against computing the whole window for each action token.

Absolute rates depend on the machine; ratios of alternating runs hardly do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from rich.console import Console
from rich.table import Table

from benchmarks.record import write_json
from gato_gym.options import PlanOptions
from gato_gym.spaces import compile_plan


@dataclass(frozen=True)
class Comparison:
    """Two ways to do the same work.

    Attributes:
        name: What is done.
        slow: The slower way, in words.
        fast: The faster way, in words.
        slow_rate: Items a second of the slower way, median over rounds.
        fast_rate: Likewise of the faster one.
        ratio: Median over rounds of ``fast / slow`` within a round.
        low: Lowest ratio of a round.
        high: Highest ratio of a round.
    """

    name: str
    slow: str
    fast: str
    slow_rate: float
    fast_rate: float
    ratio: float
    low: float
    high: float


def compare(
    name: str,
    slow: tuple[str, Callable[[], object]],
    fast: tuple[str, Callable[[], object]],
    *,
    items: int,
    seconds: float = 0.5,
    rounds: int = 5,
) -> Comparison:
    """Time two ways to do the same work, in turn, so that a busy machine slows both.

    Args:
        name: What is done.
        slow: The slower way: words for it, and a call that does it.
        fast: The faster way, likewise.
        items: What one call gets through; rates are items a second.
        seconds: How long each way is repeated in a round.
        rounds: How often they take turns.
    """
    for _, call in (slow, fast):
        call()
    rates = [
        (_rate(slow[1], items=items, seconds=seconds), _rate(fast[1], items=items, seconds=seconds))
        for _ in range(rounds)
    ]
    ratios = [quick / tardy for tardy, quick in rates]
    return Comparison(
        name,
        slow=slow[0],
        fast=fast[0],
        slow_rate=statistics.median(tardy for tardy, _ in rates),
        fast_rate=statistics.median(quick for _, quick in rates),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
    )


def _rate(call: Callable[[], object], *, items: int, seconds: float) -> float:
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or not calls:
        call()
        calls += 1
    return calls * items / elapsed


def tokenising(*, seconds: float, rows: int = 64) -> Iterator[Comparison]:
    """Observations a second, encoded as one batch against one by one.

    Args:
        seconds: As in :func:`compare`.
        rows: Observations in a batch.
    """
    grid = spaces.Dict(
        {
            "direction": spaces.Discrete(4),
            "image": spaces.Box(0, 10, (7, 7, 3), np.uint8),
            "mission": spaces.Text(24, charset="abcdefgh "),
        }
    )
    cases: tuple[tuple[str, gym.Space[Any], gym.Space[Any], PlanOptions], ...] = (
        ("grid and instruction", grid, spaces.Discrete(7), PlanOptions(grids=("image",))),
        ("39 numbers", spaces.Box(-1, 1, (39,)), spaces.Box(-1, 1, (4,)), PlanOptions()),
        ("39 numbers", spaces.Box(-1, 1, (39,)), spaces.Box(-1, 1, (4,)), PlanOptions("paper")),
        (
            "96 x 96 image",
            spaces.Box(0, 255, (96, 96, 3), np.uint8),
            spaces.Discrete(6),
            PlanOptions(),
        ),
    )
    for name, observation_space, action_space, options in cases:
        plan = compile_plan(observation_space, action_space, options)
        observation_space.seed(0)
        observations = [observation_space.sample() for _ in range(rows)]
        empty = create_empty_array(observation_space, n=rows)
        assert empty is not None
        batch = concatenate(observation_space, observations, empty)

        def one_by_one(plan: Any = plan, observations: Any = observations) -> None:
            for observation in observations:
                plan.encode(observation)

        def at_once(plan: Any = plan, batch: Any = batch) -> None:
            plan.encode_batch(batch)

        yield compare(
            f"tokenise {name}, {options.layout}",
            ("one by one", one_by_one),
            (f"{rows} at once", at_once),
            items=rows,
            seconds=seconds,
        )


def predicting(
    *, seconds: float, batches: Sequence[int] = (1, 16), rounds: int = 5
) -> Iterator[Comparison]:
    """Actions a second of a network policy, with its cache and without one.

    The cached side is all of ``predict``: tokenising, embedding, a pass of one timestep's tokens
    for each action token, sampling. The other side is only the backbone's pass over a full window
    for each action token, so that the ratio is, if anything, too low.

    Args:
        seconds: As in :func:`compare`.
        batches: Numbers of rows.
        rounds: As in :func:`compare`.
    """
    import torch

    from policies.configuration import preset
    from policies.gato import GatoPolicy
    from policies.network import GatoNetwork

    observation_space, action_space = spaces.Box(-1, 1, (39,)), spaces.Box(-1, 1, (4,))
    plan = compile_plan(observation_space, action_space, PlanOptions())
    policy = GatoPolicy(GatoNetwork(preset("mini")), plan)
    config = policy.network.config
    causal = torch.ones(config.window, config.window, dtype=torch.bool).tril()[None, None]
    for rows in batches:
        observations = np.zeros((rows, 39), np.float32)
        x_BTD = torch.zeros(rows, config.window, config.width)
        positions_BT = torch.arange(config.window).expand(rows, -1)
        state: Any = None
        for _ in range(-(-config.window // (plan.num_tokens + plan.num_actions))):
            _, state = policy.predict(observations, state=state)

        def cached(observations: Any = observations, state: Any = state) -> None:
            policy.predict(observations, state=state)

        @torch.inference_mode()
        def recomputed(x_BTD: Any = x_BTD, positions_BT: Any = positions_BT) -> None:
            for start, stop in plan.action_ranges.tolist():
                hidden_BTD = policy.network.backbone(x_BTD, positions_BT, causal)
                policy.network.symbol_logits(hidden_BTD[:, -1], start, stop)

        yield compare(
            f"predict 4 action tokens, rows: {rows}, window: {config.window}",
            ("whole window for each token", recomputed),
            ("cache", cached),
            items=rows,
            seconds=seconds,
            rounds=rounds,
        )


def _table(comparisons: Sequence[Comparison]) -> Table:
    table = Table()
    table.add_column("work")
    for column in ("a second", "ratio", "rounds"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in comparisons:
        table.add_row(each.name, style="bold")
        table.add_row(f"  {each.slow}", f"{each.slow_rate:,.0f}")
        rounds = f"{each.low:.1f} to {each.high:.1f}"
        table.add_row(f"  {each.fast}", f"{each.fast_rate:,.0f}", f"{each.ratio:.1f}", rounds)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="a way and round (default: 0.5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON too")
    options = parser.parse_args(argv)
    found = [*tokenising(seconds=options.seconds), *predicting(seconds=options.seconds)]
    Console().print(_table(found))
    if options.output is not None:
        write_json(options.output, {"comparisons": [asdict(each) for each in found]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
