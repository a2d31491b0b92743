"""What an Atari training returns after some minutes of a core, by its hyperparameters.

``python -m benchmarks.studies.atari_training`` trains every variant on every game with every seed,
and prints the table of ``docs/experts.md``.

* :data:`VARIANTS` -- what differs from the recipe.
* :func:`trained_return` -- one training.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gato_gym.commands.common import exit_status
from gato_gym.tasks.atari import GAMES as ACTIONS
from policies.expert_training.atari.ppo import AtariPPO
from policies.expert_training.recipes import recipe_for

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "the recipe": {},
    "2 epochs of 512": {"n_epochs": 2, "batch_size": 512},
    "4 epochs of 256, 16 games": {"n_epochs": 4, "num_envs": 16},
}
"""Names of variants, and the values in which each differs from the recipe."""

LAST_GAMES = 100


def trained_return(task: str, changes: Mapping[str, Any], *, seed: int, minutes: float) -> float:
    """Mean return of the last games that a training has played after so many minutes of a core.

    Args:
        task: Task id, such as ``atari-breakout``.
        changes: Values of the recipe to replace.
        seed: Decides weights, actions and episodes.
        minutes: Minutes of a core; the learning rate falls as if the recipe's steps were to follow.
    """
    names = {f"atari-{name.lower()}": name for name in ACTIONS}
    recipe = dataclasses.replace(recipe_for(task), **changes)
    learner = AtariPPO(names[task], recipe, seed=seed)
    returns: list[float] = []
    end = time.process_time() + 60 * minutes

    def goes_on() -> bool:
        returns.extend(learner.take_returns(1))
        return time.process_time() < end

    learner.learn(sys.maxsize, goes_on)
    return float(np.mean(returns[-LAST_GAMES:])) if returns else float("nan")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--games", default="breakout,seaquest,assault", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    parser.add_argument("--minutes", type=float, default=4.0, help="of a core each (default: 4)")
    args = parser.parse_args(argv)
    games = [game.strip() for game in args.games.split(",")]
    print(f"| {args.minutes:g} minutes of a core, {args.seeds} seeds | {' | '.join(games)} |")
    print(f"|---|{'---|' * len(games)}")
    for name, changes in VARIANTS.items():
        cells = []
        for game in games:
            returns = [
                trained_return(f"atari-{game}", changes, seed=seed, minutes=args.minutes)
                for seed in range(args.seeds)
            ]
            spread = np.std(returns, ddof=1) if len(returns) > 1 else 0.0
            cells.append(f"{np.mean(returns):.1f} ± {spread:.1f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
