"""How much of the games' own speed is left when an expert is trained in them.

* :func:`games`, :func:`game` -- actions a second of a training against those of ALE alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from benchmarks.speed.comparison import Comparison, compare
from gato_gym.tasks.atari import make_ale
from policies.expert_training.atari.ppo import AtariPPO
from policies.expert_training.atari.recipes import GAMES

PLAYED = ("Pong", "Breakout", "Seaquest", "Assault")


def games(*, seconds: float) -> Iterator[Comparison]:
    """Actions a second, of rollouts and updates against the same number of random ones.

    Args:
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
    """
    for name in PLAYED:
        yield game(name, seconds=seconds, limit="at least 0.45")


def game(
    name: str,
    *,
    seconds: float,
    device: str = "cpu",
    threads: int = 1,
    sizes: Mapping[str, Any] | None = None,
    limit: str = "",
) -> Comparison:
    """One game's actions a second, of rollouts and updates against the same number of random ones.

    Args:
        name: ALE's name of the game.
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
        device: Where the network learns.
        threads: ALE's threads, on both sides.
        sizes: Fields of the recipe that are replaced.
        limit: What the ratio should be, in words.
    """
    recipe = dataclasses.replace(GAMES[f"atari-{name.lower()}"], **(sizes or {}))
    learner = AtariPPO(name, recipe, seed=0, device=device, threads=threads)
    return compare(
        f"train in {recipe.num_envs} of {name}",
        ("ALE alone", _playing(name, recipe.num_envs, recipe.n_steps, threads)),
        ("training", partial(_train_once, learner)),
        items=recipe.n_steps * recipe.num_envs,
        seconds=seconds,
        limit=limit,
    )


def _train_once(learner: AtariPPO) -> None:
    """One rollout and the update with it."""
    learner.learn(learner.steps + 1, lambda: False)


def _playing(name: str, num_envs: int, steps: int, threads: int) -> Callable[[], None]:
    """A call that plays ``steps`` random actions in each of ALE's environments."""
    envs = make_ale(name, num_envs, threads=threads, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=np.arange(num_envs))
    generator = np.random.default_rng(0)

    def play() -> None:
        shape = steps, num_envs
        for actions in generator.integers(envs.single_action_space.n, size=shape, dtype=np.int32):
            envs.step(actions)

    return play
