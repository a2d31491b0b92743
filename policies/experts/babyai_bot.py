"""MiniGrid's BabyAI bot with the same decisions in a third of the time.

* :func:`quick_bot` -- the bot's class with faster searches.
* :class:`QuickSearches` -- the faster searches, and the one decision that differs.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from gato_gym.tasks.task import need

Position = tuple[int, int]


@functools.cache
def quick_bot() -> Any:
    """The class of a bot that chooses as ``BabyAIBot`` wherever that bot reaches a decision.

    The original spends nine tenths of its time on slicing its list of cells to visit and on
    MiniGrid's grids of objects. Here the list is a queue, and the visible cells come from the
    level's newest observation. Where the original plans for ever between two locked doors (four
    of ten levels of UnlockToUnlock), this bot decides.

    Returns:
        A subclass of ``minigrid.utils.baby_ai_bot.BabyAIBot``, for a level of
        :mod:`gato_gym.tasks.levels` or any other.

    Raises:
        MissingPackageError: MiniGrid is not installed.
    """
    bot: Any = need("minigrid.utils.baby_ai_bot", "babyai").BabyAIBot
    return type("QuickBot", (QuickSearches, bot), {})


class QuickSearches:
    """Mixed in before ``BabyAIBot``."""

    mission: Any
    vis_mask: Any
    bfs_counter: int
    bfs_step_counter: int

    def _process_obs(self) -> None:
        visible = getattr(self.mission.unwrapped, "visible", None)
        if visible is None:
            super()._process_obs()  # type: ignore[misc]
            return
        for position in visible:
            self.vis_mask[position] = True

    def _shortest_path(
        self, accept_fn: Callable[[Position, Any], bool], try_with_blockers: bool = False
    ) -> Any:
        """As the original, but prefers locked doors whose key is known.

        The original takes the nearest locked door. If its key lies behind another locked door, the
        original then plans for ever between the door, its key and exploring.
        """
        search = super()._shortest_path  # type: ignore[misc]
        if getattr(accept_fn, "__name__", "") == "unopened_door":
            path = search(
                lambda position, cell: accept_fn(position, cell) and self._has_key(cell.color),
                try_with_blockers,
            )
            if path[1]:
                return path
        return search(accept_fn, try_with_blockers)

    def _has_key(self, color: str) -> bool:
        """Whether a key of this colour is carried or has been seen."""
        level = self.mission.unwrapped
        things = [level.carrying]
        things += [level.grid.get(int(x), int(y)) for x, y in np.argwhere(self.vis_mask)]
        return any(thing and (thing.type, thing.color) == ("key", color) for thing in things)

    def _breadth_first_search(
        self,
        initial_states: list[tuple[int, int, int, int]],
        accept_fn: Callable[[Position, Any], bool],
        ignore_blockers: bool,
    ) -> tuple[list[Position] | None, Position | None, dict[Position, Position | None]]:
        """The first path, backwards; its end; and the predecessor of each cell."""
        self.bfs_counter += 1
        queue: deque[tuple[tuple[int, int, int, int], Any]] = deque(
            (state, None) for state in initial_states
        )
        grid = self.mission.unwrapped.grid
        cells, width = grid.grid, grid.width
        seen = self.vis_mask.tolist()
        came_from: dict[Any, Any] = {}
        while queue:
            (i, j, ahead_i, ahead_j), previous = queue.popleft()
            position = (i, j)
            if position in came_from:
                continue
            self.bfs_step_counter += 1
            cell = cells[j * width + i]
            came_from[position] = previous
            if accept_fn(position, cell):
                path = []
                step: Any = position
                while step:
                    path.append(step)
                    step = came_from[step]
                return path, position, came_from
            if not seen[i][j] or not (cell is None or _passable(cell, ignore_blockers)):
                continue
            for k, m in (
                (ahead_i, ahead_j),
                (ahead_j, ahead_i),
                (-ahead_j, -ahead_i),
                (-ahead_i, -ahead_j),
            ):
                after = (i + k, j + m)
                if after not in came_from:
                    queue.append(((*after, k, m), position))
        return None, None, came_from


def _passable(cell: Any, ignore_blockers: bool) -> bool:
    if cell.type == "wall":
        return False
    if cell.type == "door":
        return bool(cell.is_open)
    return ignore_blockers
