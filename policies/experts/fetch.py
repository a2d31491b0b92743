"""Scripts for the Fetch tasks of Gymnasium-Robotics.

* :class:`FetchExpert` -- the script of one task; :func:`make_script` makes it.
* :func:`reach`, :func:`push`, :func:`slide`, :func:`pick_and_place` -- what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gato_gym.tasks import Task
from policies.base import DistributionPolicy, spaces_of
from policies.distributions import Decision, Gaussian

Vector = NDArray[np.floating[Any]]
State = Mapping[str, Vector]
"""An observation of one environment."""

GAIN = 20.0
"""Action for each metre that the gripper is to move; 1, the most, moves it by about 0.03."""

FRICTION = 0.0014
"""Metres a step that a sliding puck loses of its speed with each step."""

OPEN, CLOSED = 1.0, -1.0


def reach(state: State) -> Vector:
    """Move the gripper to the goal."""
    return _move(state, state["desired_goal"])


def push(state: State) -> Vector:
    """Push the object towards the goal, until it is there."""
    away = state["desired_goal"] - state["achieved_goal"]
    if np.linalg.norm(away) < 0.02:
        return _move(state, _gripper(state))
    return _strike(state, behind=0.08, speed=GAIN / 2 * float(np.linalg.norm(away)))


def slide(state: State) -> Vector:
    """Push the puck until it is fast enough to slide to the goal; more than half of them arrive."""
    observation = state["observation"]
    distance = float(np.linalg.norm(state["desired_goal"] - state["achieved_goal"]))
    velocity = (observation[14:17] + observation[20:23])[:2]  # the puck's against the gripper's
    speed = float(np.linalg.norm(velocity))
    if distance < 0.03 or speed**2 / (2 * FRICTION) > distance:  # let go
        return np.array((*(-velocity / max(speed, 1e-6)), 0.5, 0.0))
    if speed > 0.003 and np.linalg.norm((_gripper(state) - state["achieved_goal"])[:2]) > 0.12:
        return np.zeros(4)
    return _strike(state, behind=0.16, speed=27 * float(np.sqrt(2 * FRICTION * distance)))


def pick_and_place(state: State) -> Vector:
    """Grasp the object from above, and carry it to the goal."""
    gripper, item = _gripper(state), state["achieved_goal"]
    apart = item - gripper
    if np.linalg.norm(apart) < 0.015:
        is_open = state["observation"][9:11].sum() > 0.055  # wider than the object
        return _move(state, gripper if is_open else gripper + state["desired_goal"] - item, CLOSED)
    above = 0.0 if np.linalg.norm(apart[:2]) < 0.01 else 0.06
    return _move(state, item + np.array((0.0, 0.0, above)), OPEN)


def _strike(state: State, *, behind: float, speed: float) -> Vector:
    """Go round to the far side of the object, down, and towards the goal at a speed of 1 or less.

    Args:
        state: The observation.
        behind: Metres behind the object from which the gripper comes.
        speed: An action, which is reduced to 1.
    """
    gripper, item = _gripper(state), state["achieved_goal"]
    away = (state["desired_goal"] - item)[:2]
    ahead = away / max(float(np.linalg.norm(away)), 1e-6)
    offset = gripper[:2] - item[:2]
    astray = offset - (offset @ ahead) * ahead
    if np.linalg.norm(astray) < 0.015 and offset @ ahead < 0 and gripper[2] < item[2] + 0.02:
        return np.array((*(min(speed, 1.0) * ahead - 5 * astray), 0.0, 0.0))
    start = np.array((*(item[:2] - behind * ahead), item[2]))
    if np.linalg.norm(gripper[:2] - start[:2]) > 0.015:
        start[2] += 0.08
        if gripper[2] < item[2] + 0.05:  # up before it goes round
            return _move(state, np.array((*gripper[:2], start[2])))
    return _move(state, start)


def _gripper(state: State) -> Vector:
    return state["observation"][:3]


def _move(state: State, place: Vector, fingers: float = 0.0) -> Vector:
    return np.array((*(GAIN * (place - _gripper(state))), fingers))


SCRIPTS: Mapping[str, Callable[[State], Vector]] = {
    "FetchPickAndPlace-v4": pick_and_place,
    "FetchPush-v4": push,
    "FetchReach-v4": reach,
    "FetchSlide-v4": slide,
}
"""By Gymnasium-Robotics' ids."""


class FetchExpert(DistributionPolicy):
    """The script of one task, its actions clipped to the Box; it looks at the observation alone.

    Args:
        env_id: Gymnasium-Robotics' id, such as ``FetchReach-v4``.
        observation_space: The Dict of one environment's observations.
        action_space: Box ``(4,)``.
    """

    def __init__(
        self, env_id: str, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        super().__init__(observation_space, action_space)
        self._script = SCRIPTS[env_id]

    def _decide_batch(
        self, observation: Any, state: Any, starts: NDArray[np.bool_], deterministic: bool
    ) -> Decision:
        rows = (
            {key: value[row] for key, value in observation.items()} for row in range(len(starts))
        )
        actions = np.clip([self._script(row) for row in rows], -1.0, 1.0).astype(np.float32)
        return Decision(actions, None, Gaussian(actions, np.zeros_like(actions)))


def make_script(task: Task, env: Any) -> FetchExpert:
    """The expert of suite ``robotics``."""
    return FetchExpert(task.env_id, *spaces_of(env))
