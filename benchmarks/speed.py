"""Ratios of speeds, both sides measured in one run: ``python -m benchmarks.speed``.

* :class:`Comparison` -- two ways to do the same work, and how much faster the second is.
* :func:`compare` -- times them in turn.
* :func:`tokenising` -- a batch of observations at once against one by one, and against a copy.
* :func:`stepping` -- environments in token space against bare ones.
* :func:`importing` -- the import of the package against Gymnasium's.
* :func:`predicting` -- the cache against computing the whole window for each action token.

Absolute rates depend on the machine; ratios of alternating runs hardly do.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
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
from gato_gym.wrappers import GatoTokenizeVector


@dataclass(frozen=True)
class Comparison:
    """Two ways to do the same work.

    Attributes:
        name: What is done.
        slow: The way compared with, in words.
        fast: The way whose speed is in question, in words.
        slow_rate: Items a second of the first way, median over rounds.
        fast_rate: Likewise of the second.
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


SHORTEST_TURN = 0.02
"""Seconds that the faster way is repeated for before it is the other's turn."""


def compare(
    name: str,
    slow: tuple[str, Callable[[], object]],
    fast: tuple[str, Callable[[], object]],
    *,
    items: int,
    seconds: float = 0.5,
    rounds: int = 5,
) -> Comparison:
    """Time two ways to do the same work, in short turns, so that a busy machine slows both.

    In each turn both make the same number of calls, and they take turns at being first: two
    environments of one seed then step through the same states, whose cost differs.

    Args:
        name: What is done.
        slow: The way compared with: words for it, and a call that does it.
        fast: The way in question, likewise.
        items: What one call gets through; rates are items a second.
        seconds: How long a round lasts for each way, on average of the two.
        rounds: How many ratios the median is of.
    """
    ways = (slow[1], fast[1])
    for call in ways:  # what is only done once is not timed
        call()
    calls = math.ceil(SHORTEST_TURN / max(min(_seconds(call, 1) for call in ways), 1e-9))
    found = [_round(ways, calls=calls, seconds=seconds) for _ in range(rounds)]
    rates = [
        (turns * calls * items / tardy, turns * calls * items / quick)
        for turns, tardy, quick in found
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


def _round(
    ways: tuple[Callable[[], object], Callable[[], object]], *, calls: int, seconds: float
) -> tuple[int, float, float]:
    """How many turns each way had, and the seconds each took for them all."""
    spent, turns = [0.0, 0.0], 0
    while not turns or sum(spent) < 2 * seconds:
        for way in (0, 1) if turns % 2 == 0 else (1, 0):
            spent[way] += _seconds(ways[way], calls)
        turns += 1
    return turns, spent[0], spent[1]


def _seconds(call: Callable[[], object], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - started


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


def copying(*, seconds: float, rows: int = 256, numbers: int = 4096) -> Iterator[Comparison]:
    """Continuous vectors a second, encoded as a batch against copied by numpy.

    Args:
        seconds: As in :func:`compare`.
        rows: Vectors in a batch.
        numbers: Numbers of a vector.
    """
    space = spaces.Box(-1, 1, (numbers,))
    batch = np.random.default_rng(0).uniform(-1, 1, (rows, numbers)).astype(np.float32)
    target = np.empty_like(batch)
    for layout in ("lean", "paper"):
        plan = compile_plan(space, spaces.Discrete(2), PlanOptions(layout))
        yield compare(
            f"encode {rows} vectors of {numbers:,} numbers, {layout}",
            ("numpy.copyto", functools.partial(np.copyto, target, batch)),
            ("encode_batch", functools.partial(plan.encode_batch, batch)),
            items=rows,
            seconds=seconds,
        )


def importing() -> Iterator[Comparison]:
    """Imports a second of this package, in a fresh process each, against Gymnasium's alone.

    What the import costs beyond Gymnasium's is ``1 / fast_rate - 1 / slow_rate`` seconds.
    """

    def fresh(module: str) -> Callable[[], object]:
        return functools.partial(subprocess.run, [sys.executable, "-c", f"import {module}"])

    yield compare(
        "import in a fresh process",
        ("gymnasium", fresh("gymnasium")),
        ("gato_gym", fresh("gato_gym")),
        items=1,
        seconds=0.0,
        rounds=9,
    )


STEPPED = {
    "CartPole-v1": "gymnasium",
    "HalfCheetah-v5": "mujoco",
    "ale_py:ALE/Pong-v5": "ale_py",
    "Gato/babyai-go-to-local": "minigrid",
}
"""Environments of :func:`stepping`, and the package that each needs."""


def stepping(*, seconds: float, num_envs: int = 16) -> Iterator[Comparison]:
    """Steps a second of vector environments, in token space against bare.

    Both sides take the same actions; the wrapped one as tokens. Environments whose package is
    missing are left out.

    Args:
        seconds: As in :func:`compare`.
        num_envs: How many environments step together.
    """
    for name, package in STEPPED.items():
        if find_spec(package) is None:
            continue
        bare, inner = (
            gym.make_vec(name, num_envs=num_envs, vectorization_mode="sync") for _ in range(2)
        )
        wrapped = GatoTokenizeVector(inner)
        for envs in (bare, wrapped):
            envs.reset(seed=0)
        wrapped.action_space.seed(0)
        tokens = [wrapped.action_space.sample() for _ in range(64)]
        actions = [wrapped.plan.decode_batch(each) for each in tokens]
        yield compare(
            f"step {num_envs} of {name}",
            ("bare", _steps(bare, actions)),
            ("in token space", _steps(wrapped, tokens)),
            items=num_envs,
            seconds=seconds,
            rounds=9,
        )
        bare.close()
        wrapped.close()


def _steps(envs: Any, actions: Sequence[Any]) -> Callable[[], object]:
    """A call that steps the environments with the next of the actions, over and over."""
    following = itertools.cycle(actions)
    return lambda: envs.step(next(following))


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
        table.add_row(f"  {each.slow}", _rate_in_words(each.slow_rate))
        digits = 1 if each.ratio > 2 else 3
        rounds = f"{each.low:.{digits}f} to {each.high:.{digits}f}"
        ratio = f"{each.ratio:.{digits}f}"
        table.add_row(f"  {each.fast}", _rate_in_words(each.fast_rate), ratio, rounds)
    return table


def _rate_in_words(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("tokenise", "predict"), help="default: both")
    parser.add_argument("--seconds", type=float, default=0.5, help="a way and round (default: 0.5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON too")
    options = parser.parse_args(argv)
    found: list[Comparison] = []
    if options.what != "predict":
        for measure in (stepping, copying, tokenising):
            found += measure(seconds=options.seconds)
        found += importing()
    if options.what != "tokenise":
        found += predicting(seconds=options.seconds)
    Console().print(_table(found))
    if options.output is not None:
        write_json(options.output, {"comparisons": [asdict(each) for each in found]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
