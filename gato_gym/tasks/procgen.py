"""Procgen: 16 games whose levels are drawn, simulated by EnvPool (arXiv 1912.01588).

* :data:`SUITE` -- the games at their hard setting, from all levels.
* :class:`ProcgenEnv` -- one of them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.options import PlanOptions
from gato_gym.tasks.envpool import EnvPoolEnv
from gato_gym.tasks.suite import Suite
from gato_gym.tasks.task import Task

GAMES = {
    "bigfish": 6000, "bossfight": 4000, "caveflyer": 1000, "chaser": 1000, "climber": 1000,
    "coinrun": 1000, "dodgeball": 1000, "fruitbot": 1000, "heist": 1000, "jumper": 1000,
    "leaper": 500, "maze": 500, "miner": 1000, "ninja": 1000, "plunder": 4000, "starpilot": 1000,
}  # fmt: skip
"""Steps after which an episode of each game is truncated."""


class ProcgenEnv(EnvPoolEnv):
    """A game as an environment: uint8 ``(64, 64, 3)`` and 15 actions.

    Args:
        game: Procgen's name, such as ``coinrun``.
        render_mode: None, or "rgb_array": the observation.

    Raises:
        MissingPackageError: EnvPool is not installed, or the system lacks Qt 5.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(self, game: str, *, render_mode: str | None = None) -> None:
        super().__init__(f"{game.capitalize()}Hard-v0", {"channel_first": False})
        self.render_mode = render_mode
        self._newest: NDArray[np.uint8] = np.zeros((64, 64, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start a level, which the seed draws."""
        self._newest, info = super().reset(seed=seed, options=options)
        return self._newest, info

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """One step of the game."""
        transition = super().step(action)
        self._newest = transition[0]
        return transition

    def render(self) -> NDArray[np.uint8] | None:
        """The newest observation."""
        return None if self.render_mode is None else self._newest


SUITE = Suite(
    "procgen",
    tuple(
        Task(
            id=f"procgen-{game}",
            suite="procgen",
            env_id=f"{game.capitalize()}Hard-v0",
            max_episode_steps=steps,
            options=PlanOptions(),
            factory=partial(ProcgenEnv, game),
            extra="envpool",
            description=f"Procgen {game}, hard: levels without end, 64 x 64 in colour",
            observation="64×64 colours",
            action="1 of 15",
        )
        for game, steps in GAMES.items()
    ),
    title="Procgen",
    simulators=("envpool",),
    rules={"distribution_mode": "hard", "num_levels": 0},
    unit_episodes=1,
)
