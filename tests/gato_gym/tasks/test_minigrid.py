"""MiniGrid's worlds, which come in as another package's suite would, and their planner."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from minigrid.core.grid import Grid
from minigrid.core.world_object import Door, Goal, Key

from gato_gym.tasks import register_suite
from gato_gym.tasks.minigrid import SUITE
from policies.experts import make_expert
from policies.experts.minigrid import DONE, DROP, FORWARD, LEFT, PICK_UP, TOGGLE, next_action

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
register_suite(SUITE)


def test_it_comes_in_by_an_entry_point() -> None:
    value = PROJECT["entry-points"]["gato_gym.suites"]["minigrid"]
    module, _, attribute = value.partition(":")
    assert getattr(importlib.import_module(module), attribute) is SUITE


def test_ids() -> None:
    ids = {task.env_id: task.id for task in SUITE.tasks}
    assert len(ids) == len(SUITE.tasks) == 28
    assert ids["MiniGrid-LavaCrossingS9N1-v0"] == "minigrid-lava-crossing-s9n1"
    assert ids["MiniGrid-MultiRoom-N4-S5-v1"] == "minigrid-multi-room-n4-s5"


@pytest.mark.parametrize("task", SUITE.tasks, ids=lambda task: task.id)
def test_the_planner_reaches_every_goal(task: object) -> None:
    envs = SyncVectorEnv([task.make] * 3, autoreset_mode="Disabled")  # type: ignore[attr-defined]
    planner = make_expert(task.id, envs)  # type: ignore[attr-defined]
    observation, _ = envs.reset(seed=[1, 2, 3])
    done, solved = np.zeros(3, bool), np.zeros(3, bool)
    for _ in range(300):
        actions, _ = planner.predict(observation)
        for row in np.flatnonzero(~done):
            observed, _, terminated, truncated, info = envs.envs[row].step(int(actions[row]))
            assert observed in envs.single_observation_space
            done[row], solved[row] = terminated or truncated, info["success"]
        if done.all():
            break
    assert solved.all()


def row_of_cells(*things: object) -> tuple[Any, Any]:
    """An environment whose agent looks along a row of cells from its left end; its world."""
    (task,) = (task for task in SUITE.tasks if task.id == "minigrid-door-key-5x5")
    env = task.make()
    env.reset(seed=0)
    world: Any = env.unwrapped
    world.width, world.grid = len(things) + 3, Grid(len(things) + 3, 3)
    world.grid.wall_rect(0, 0, world.width, 3)
    for column, thing in enumerate(things, start=2):
        if thing is not None:
            world.put_obj(thing, column, 1)
    world.agent_pos, world.agent_dir = np.array((1, 1)), 0
    return env, world


def test_a_key_is_fetched_and_the_door_unlocked() -> None:
    env, world = row_of_cells(Key("red"), None, Door("red", is_locked=True), Goal())
    played, terminated = [], False
    while not terminated:
        played.append(next_action(world))
        *_, terminated, _, _ = env.step(played[-1])
    assert played == [PICK_UP, FORWARD, FORWARD, TOGGLE, FORWARD, FORWARD]


def test_what_is_carried_in_vain_is_put_down() -> None:
    _, world = row_of_cells(None, Door("red", is_locked=True), Goal())
    world.carrying = Key("blue")
    assert next_action(world) == DROP
    world.agent_dir = 2  # before the wall
    assert next_action(world) == LEFT
    world.carrying = None
    assert next_action(world) == DONE, "there is no key"
