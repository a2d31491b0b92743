"""BabyAI levels with fast observations and generators that always finish.

* :func:`bounded_level` -- the class of such a level.
* :func:`egocentric_view` -- MiniGrid's view of the agent, about ten times as fast.
* :class:`LevelGenerationError` -- the generator found no level.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from numpy.typing import NDArray

MAX_DRAWS = 200_000
"""Random numbers one attempt at a level may draw; attempts that succeed draw some thousands."""

MAX_ATTEMPTS = 10
"""Attempts at one level."""

_EMPTY = bytes((1, 0, 0))
_WALL = bytes((2, 5, 0))
_OUTSIDE: Any = object()


class LevelGenerationError(RuntimeError):
    """No attempt at generating a level came to an end."""


@functools.cache
def bounded_level(env_id: str) -> Any:
    """A MiniGrid level's class with :class:`BoundedLevel` mixed in.

    Args:
        env_id: A registered id, such as ``BabyAI-GoToLocal-v0``.

    Returns:
        The class; call it with ``render_mode`` and MiniGrid's own arguments.
    """
    spec = gym.spec(env_id)
    entry_point = spec.entry_point
    level: Any = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    bounded = type(f"Bounded{level.__name__}", (BoundedLevel, level), {})
    return functools.partial(bounded, **spec.kwargs)


class BoundedLevel:
    """Mixed in before a BabyAI level's class.

    Some generators place objects at random until they fit and may never finish (GoToImpUnlock).
    Counting their random numbers stops them at the same point on every machine. The next attempt
    continues from the generator's state, so that a seed still determines the level.

    Attributes:
        visible: Positions ``(x, y)`` on the grid of the cells the newest observation shows.
    """

    visible: list[tuple[int, int]]
    _draws: int = 0

    def _rand_int(self, low: int, high: int) -> int:
        self._draws += 1
        if self._draws > MAX_DRAWS:
            raise LevelGenerationError
        return super()._rand_int(low, high)  # type: ignore[misc]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode.

        Raises:
            LevelGenerationError: No attempt came to an end.
        """
        for _ in range(MAX_ATTEMPTS):
            self._draws = 0
            try:
                return super().reset(seed=seed, options=options)  # type: ignore[misc]
            except LevelGenerationError:
                seed = None
        raise LevelGenerationError(
            f"{type(self).__name__.removeprefix('Bounded')} made no level in {MAX_ATTEMPTS} "
            f"attempts of {MAX_DRAWS} random numbers each: reset it with another seed"
        )

    def _gen_grid(self, width: int, height: int) -> None:
        """What ``RoomGridLevel._gen_grid`` does, without printing each layout rejected."""
        from minigrid.envs.babyai.core.roomgrid_level import RejectSampling, RoomGridLevel

        level: Any = self
        above: Any = super(RoomGridLevel, level)
        while True:
            try:
                above._gen_grid(width, height)
                level.gen_mission()
                level.validate_instrs(level.instrs)
            except (RecursionError, RejectSampling):
                continue
            break
        level.mission = level.surface = level.instrs.surface(level)

    def gen_obs(self) -> dict[str, Any]:
        """The observation, as MiniGrid's ``gen_obs`` gives it."""
        level: Any = self
        image, self.visible = egocentric_view(level)
        return {"image": image, "direction": level.agent_dir, "mission": level.mission}


def egocentric_view(level: Any) -> tuple[NDArray[np.uint8], list[tuple[int, int]]]:
    """The agent's view, read directly from the grid.

    MiniGrid first slices and rotates a grid of objects. This function walks the rows of the view
    from the agent outwards and spreads visibility as ``Grid.process_vis`` does.

    Args:
        level: An unwrapped MiniGrid environment.

    Returns:
        uint8 ``[size, size, 3]`` with (type, colour, state), first axis from left to right, second
        from far to near; and the grid positions of the visible cells.
    """
    size, half = level.agent_view_size, level.agent_view_size // 2
    grid, width, height = level.grid.grid, level.grid.width, level.grid.height
    front_x, front_y = (int(part) for part in level.dir_vec)
    right_x, right_y = -front_y, front_x
    x_0, y_0 = (int(part) for part in level.agent_pos)
    view = bytearray(3 * size * size)
    visible: list[tuple[int, int]] = []
    everywhere = bytearray(b"\x01" * size)
    seen = bytearray(size)
    seen[half] = 1
    for row in range(size - 1, -1, -1):
        ahead = size - 1 - row
        positions = [
            (x_0 + front_x * ahead + right_x * side, y_0 + front_y * ahead + right_y * side)
            for side in range(-half, half + 1)
        ]
        cells = [
            grid[y * width + x] if 0 <= x < width and 0 <= y < height else _OUTSIDE
            for x, y in positions
        ]
        beyond = _look(cells, seen)
        if level.see_through_walls:
            seen = everywhere
        for column in range(size):
            if not seen[column]:
                continue
            cell = cells[column]
            if cell is not _OUTSIDE:
                visible.append(positions[column])
            if not ahead and column == half:
                cell = level.carrying
            symbols = _EMPTY if cell is None else _WALL
            if cell is not None and cell is not _OUTSIDE:
                symbols = bytes(cell.encode())
            start = 3 * (column * size + row)
            view[start : start + 3] = symbols
        seen = beyond
    return np.frombuffer(view, dtype=np.uint8).reshape(size, size, 3), visible


def _look(cells: list[Any], seen: bytearray) -> bytearray:
    """Spread ``seen`` along a row, in place; returns what is seen of the row beyond it."""
    clear = [cell is None or (cell is not _OUTSIDE and cell.see_behind()) for cell in cells]
    beyond = bytearray(len(cells))
    last = len(cells) - 1
    for column in range(last):
        if seen[column] and clear[column]:
            seen[column + 1] = beyond[column] = beyond[column + 1] = 1
    for column in range(last, 0, -1):
        if seen[column] and clear[column]:
            seen[column - 1] = beyond[column] = beyond[column - 1] = 1
    return beyond
