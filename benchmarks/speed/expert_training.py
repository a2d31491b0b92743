"""How much of the games' own speed is left when an expert is trained in them.

* :func:`games` -- actions a second of a training against those of ALE alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

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
    for game in PLAYED:
        recipe = GAMES[f"atari-{game.lower()}"]
        actions = recipe.n_steps * recipe.num_envs
        learner = AtariPPO(game, recipe, seed=0)
        yield compare(
            f"train in {recipe.num_envs} of {game}",
            ("ALE alone", _playing(game, recipe.num_envs, recipe.n_steps)),
            ("training", partial(_train_once, learner)),
            items=actions,
            seconds=seconds,
            limit="at least 0.45",
        )


def _train_once(learner: AtariPPO) -> None:
    """One rollout and the update with it."""
    learner.learn(learner.steps + 1, lambda: False)


def _playing(game: str, num_envs: int, steps: int) -> Callable[[], None]:
    """A call that plays ``steps`` random actions in each of ALE's environments."""
    envs = make_ale(game, num_envs, threads=1, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=np.arange(num_envs))
    generator = np.random.default_rng(0)

    def play() -> None:
        shape = steps, num_envs
        for actions in generator.integers(envs.single_action_space.n, size=shape, dtype=np.int32):
            envs.step(actions)

    return play
