"""Look-up of tasks and their Gymnasium ids.

* :class:`Task` and the functions that :mod:`gato_gym.tasks` lists.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import gymnasium as gym

from gato_gym.tasks.task import NAMESPACE, Task, UnknownTaskError


@cache
def _tasks() -> dict[str, Task]:
    from gato_gym.tasks import atari, babyai, dm_control, metaworld, mujoco

    suites = (atari, babyai, dm_control, metaworld, mujoco)
    tasks = [task for suite in suites for task in suite.tasks()]
    return {task.id: task for task in sorted(tasks, key=lambda task: task.id)}


SUITES = ("atari", "babyai", "dm_control", "metaworld", "mujoco")

SCRIPTED_SUITES = {"babyai": "bot", "metaworld": "script"}
"""Suites whose experts are programs, and the kind of program."""


def get_task(task_id: str) -> Task:
    """The task with this id, ``babyai-go-to-local`` or ``Gato/babyai-go-to-local``.

    Raises:
        UnknownTaskError: Names the nearest ids.

    Example:
        >>> get_task("babyai-go-to-local").env_id
        'BabyAI-GoToLocal-v0'
    """
    name = task_id.removeprefix(f"{NAMESPACE}/")
    if name not in _tasks():
        near = difflib.get_close_matches(name, _tasks(), 3, 0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"suites are {', '.join(SUITES)}"
        raise UnknownTaskError(f"unknown task {task_id!r}: {hint}")
    return _tasks()[name]


def list_tasks(suite: str | None = None, pattern: str | None = None) -> list[Task]:
    """Tasks sorted by id.

    Args:
        suite: The suite; None lists all suites.
        pattern: Shell pattern of the ids (``*-unlock*``), with or without the suite. Commas
            separate several (``reach,push*``).

    Raises:
        UnknownTaskError: The suite does not exist, the pattern is empty, or a part of it matches
            nothing.
    """
    if suite is not None and suite not in SUITES:
        raise UnknownTaskError(f"unknown suite {suite!r}: expected one of {', '.join(SUITES)}")
    chosen = [task for task in _tasks().values() if suite in (None, task.suite)]
    if pattern is None:
        return chosen
    parts = [part.strip().removeprefix(f"{NAMESPACE}/") for part in pattern.split(",")]
    if not any(parts):
        raise UnknownTaskError("the pattern of tasks is empty: give an id, or one such as 'go-*'")
    matching = set().union(*(_ids_matching(chosen, part) for part in parts if part))
    return [task for task in chosen if task.id in matching]


def _ids_matching(tasks: list[Task], pattern: str) -> set[str]:
    matching = {
        task.id
        for task in tasks
        for name in (task.id, task.id.removeprefix(f"{task.suite}-"))
        if fnmatch.fnmatchcase(name, pattern)
    }
    if not matching:
        ids = [task.id for task in tasks]
        short = [task.id.removeprefix(f"{task.suite}-") for task in tasks]
        near = difflib.get_close_matches(pattern.strip("*"), ids + short, 3, 0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"for example {ids[0]}"
        raise UnknownTaskError(f"no task matches {pattern!r}: {hint}")
    return matching


def task_id_of(env: Any) -> str | None:
    """Id of the task that an environment, a vector environment or SB3's VecEnv plays, if any."""
    spec = getattr(env, "spec", None)
    if spec is None and hasattr(env, "get_attr"):
        try:
            spec = env.get_attr("spec")[0]
        except (AttributeError, IndexError):
            spec = None
    if spec is None and getattr(env, "envs", None):
        spec = env.envs[0].spec
    name = getattr(spec, "id", None)
    prefix = f"{NAMESPACE}/"
    if isinstance(name, str) and name.startswith(prefix) and name[len(prefix) :] in _tasks():
        return name[len(prefix) :]
    return None


def make_task_env(
    task_id: str,
    render_mode: str | None = None,
    wrappers: Sequence[Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]] = (),
    sticky: float = 0.0,
) -> gym.Env[Any, Any]:
    """Entry point of the ``Gato/…`` ids.

    Args:
        task_id: The task.
        render_mode: As in Gymnasium.
        wrappers: Applied in order, the first innermost.
        sticky: As in :meth:`Task.make`.

    Raises:
        ValueError: ``sticky`` is set for a task that is not an Atari game.
    """
    task = get_task(task_id)
    if sticky and task.suite != "atari":
        raise ValueError(
            f"sticky is {sticky} for {task_id}, expected 0: only Atari's games have sticky actions"
        )
    options = {"sticky": sticky} if sticky else {}
    env = task.factory(render_mode=render_mode, **options)
    env.unwrapped.spec = gym.spec(f"{NAMESPACE}/{task_id}")  # wrappers read the task from it
    for wrapper in wrappers:
        env = wrapper(env)
    return env


def register() -> None:
    """Register every task with Gymnasium as ``Gato/<id>``; again is harmless."""
    for task in _tasks().values():
        name = f"{NAMESPACE}/{task.id}"
        if name not in gym.registry:
            gym.register(
                id=name,
                entry_point="gato_gym.tasks:make_task_env",
                max_episode_steps=task.max_episode_steps,
                kwargs={"task_id": task.id},
                disable_env_checker=True,
            )
