"""A planner for MiniGrid's worlds, which sees the whole grid.

* :class:`MiniGridPlanner` -- the expert of suite ``minigrid``; :func:`make_planner` makes it.
* :func:`next_action` -- what it does in a world.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gato_gym.tasks import Task
from policies.base import DistributionPolicy, spaces_of
from policies.distributions import Categorical, Decision
from policies.experts.babyai import CHOICES, DONE, environments_of

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE = range(6)
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""One step forward, by direction."""

Pose = tuple[int, int, int]
"""Column, row and direction."""


class MiniGridPlanner(DistributionPolicy):
    """Takes a shortest way to the green square, and fetches the keys that it needs.

    Where there is no way (a key has been lost behind its door), it chooses ``done``.

    Args:
        env: An environment, or a vector environment with ``envs`` (``SyncVectorEnv``,
            ``DummyVecEnv``).
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.

    Raises:
        ValueError: The environments run in other processes.
    """

    def __init__(
        self, env: Any, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        super().__init__(observation_space, action_space)
        self._envs = environments_of(env)

    def _decide_batch(
        self, observation: Any, state: Any, starts: NDArray[np.bool_], deterministic: bool
    ) -> Decision:
        if len(starts) != len(self._envs):
            raise ValueError(
                f"{len(starts)} observations for {len(self._envs)} environments: the planner plays "
                "in the environments it was made for, all of them at once"
            )
        actions = np.asarray([next_action(env.unwrapped) for env in self._envs], np.int64)
        return Decision(actions, None, Categorical.certain(actions, CHOICES))


def make_planner(task: Task, env: Any) -> MiniGridPlanner:
    """The expert of suite ``minigrid``."""
    return MiniGridPlanner(env, *spaces_of(env))


def next_action(world: Any) -> int:
    """The first action of a shortest way to the goal, or to a key that opens a door on it.

    Args:
        world: An unwrapped MiniGrid environment.
    """
    carried = world.carrying

    def passable(cell: Any) -> bool:
        if cell is None or cell.type in ("goal", "floor"):
            return True
        if cell.type != "door":
            return False
        return cell.is_open or not cell.is_locked or _opens(carried, cell)

    step = _first_step(world, passable, lambda pose: _is(world.grid.get(*pose[:2]), "goal"))
    if step is not None:
        return step
    if carried is not None:  # a key without a door that it opens on the way: another is needed
        ahead = world.grid.get(*world.front_pos)
        spare = _first_step(world, passable, lambda pose: _ahead(world, pose) is None)
        return DROP if ahead is None else DONE if spare is None else spare
    locked = {cell.color for cell in world.grid.grid if _is(cell, "door") and cell.is_locked}

    def faces_key(pose: Pose) -> bool:
        cell = _ahead(world, pose)
        return _is(cell, "key") and cell.color in locked

    step = _first_step(world, passable, faces_key)
    return DONE if step is None else step


def _is(cell: Any, kind: str) -> bool:
    return cell is not None and cell.type == kind


def _opens(carried: Any, door: Any) -> bool:
    return _is(carried, "key") and carried.color == door.color


def _ahead(world: Any, pose: Pose) -> Any:
    """The cell in front of a pose."""
    column, row, direction = pose
    return world.grid.get(column + STEPS[direction][0], row + STEPS[direction][1])


def _first_step(
    world: Any, passable: Callable[[Any], bool], accept: Callable[[Pose], bool]
) -> int | None:
    """The first action on a shortest way to a pose that is accepted; None where there is none.

    At such a pose already, the key in front is picked up.
    """
    start: Pose = (*map(int, world.agent_pos), int(world.agent_dir))  # type: ignore[assignment]
    if accept(start):
        return PICK_UP
    queue, seen = deque([(start, -1)]), {start}
    while queue:
        pose, first = queue.popleft()
        column, row, direction = pose
        moves = [
            (LEFT, (column, row, (direction - 1) % 4)),
            (RIGHT, (column, row, (direction + 1) % 4)),
        ]
        cell = _ahead(world, pose)
        if passable(cell):
            closed = _is(cell, "door") and not cell.is_open
            to = (column + STEPS[direction][0], row + STEPS[direction][1], direction)
            moves.append((TOGGLE if closed else FORWARD, to))
        for action, after in moves:
            if after in seen:
                continue
            seen.add(after)
            chosen = action if first < 0 else first
            if accept(after):
                return chosen
            queue.append((after, chosen))
    return None
