"""Speeds of the token space, each against another way, in one run.

* :func:`tokenising` -- a batch of observations at once against one by one.
* :func:`copying` -- a batch of vectors against a copy of the same numbers.
* :func:`stepping` -- environments in token space against bare ones.
* :func:`importing` -- the import of the package against Gymnasium's.
"""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from benchmarks.speed.comparison import Comparison, compare
from gato_gym.options import PlanOptions
from gato_gym.spaces import compile_plan
from gato_gym.wrappers import GatoTokenizeVector


def tokenising(*, seconds: float, rows: int = 64) -> Iterator[Comparison]:
    """Observations a second, encoded as one batch against one by one.

    Args:
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
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
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
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
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
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
            limit="" if name == "CartPole-v1" else "at least 0.95",
        )
        bare.close()
        wrapped.close()


def _steps(envs: Any, actions: Sequence[Any]) -> Callable[[], object]:
    """A call that steps the environments with the next of the actions, over and over."""
    following = itertools.cycle(actions)
    return lambda: envs.step(next(following))
