"""Sokoban: boxes that are to be pushed onto targets, simulated by EnvPool (arXiv 1707.06203).

* :data:`SUITE` -- one task: the 1,000 test levels of Boxoban's unfiltered set, 120 steps.
* :class:`SokobanEnv` -- it, as Jumanji defines it (arXiv 2306.09884).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.options import PlanOptions
from gato_gym.tasks.envpool import EnvPoolEnv
from gato_gym.tasks.suite import Suite
from gato_gym.tasks.task import Task

ENV_ID = "Jumanji/Sokoban-v0"
STEPS = 120
COLOURS = np.array(
    [(240, 240, 230), (90, 90, 90), (230, 120, 120), (60, 120, 220), (190, 130, 60), (90, 160, 60)],
    np.uint8,
)
"""Floor, wall, target, agent, box, and a box on a target."""

WALL, TARGET, AGENT, BOX = 1, 2, 3, 4


class SokobanEnv(EnvPoolEnv):
    """A level, drawn by the seed.

    Observations are ``grid``, uint8 ``(10, 10, 2)`` of what moves (agent 3, box 4) and what does
    not (wall 1, target 2), and ``step_count``. Actions are up, right, down and left. A step costs
    0.1, a box on a target is worth 1 and off it -1, and the last one 10 more.

    Args:
        render_mode: None, or "rgb_array": the grid in colours.

    Raises:
        MissingPackageError: EnvPool is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012

    def __init__(self, *, render_mode: str | None = None) -> None:
        # its levels are beside its code; elsewhere, EnvPool would play one level over and over
        super().__init__(ENV_ID, {"base_path": str(self.folder())})
        self.render_mode = render_mode
        self._grid: NDArray[np.uint8] = np.zeros((10, 10, 2), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a level, which the seed draws."""
        observation, info = super().reset(seed=seed, options=options)
        self._grid = observation["grid"]
        return observation, info

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move, or push a box; ``info["success"]`` is whether all boxes are on targets."""
        transition = super().step(action)
        self._grid = transition[0]["grid"]
        return transition

    def render(self) -> NDArray[np.uint8] | None:
        """The level, uint8 ``(160, 160, 3)``."""
        if self.render_mode is None:
            return None
        moving, fixed = self._grid[..., 0], self._grid[..., 1]
        kinds = np.where(moving > 0, moving, fixed)
        kinds = np.where((moving == BOX) & (fixed == TARGET), len(COLOURS) - 1, kinds)
        return np.kron(COLOURS[kinds], np.ones((16, 16, 1), np.uint8))


SUITE = Suite(
    "sokoban",
    (
        Task(
            id="sokoban-boxoban",
            suite="sokoban",
            env_id=ENV_ID,
            max_episode_steps=STEPS,
            options=PlanOptions(grids=("grid",)),
            factory=SokobanEnv,
            extra="envpool",
            description="Sokoban: push four boxes onto their targets, a new level each episode",
            observation="10×10 grid, steps",
            action="1 of 4",
        ),
    ),
    title="Sokoban",
    simulators=("envpool",),
    rules={"levels": "boxoban unfiltered test"},
    unit_episodes=8,
)
