"""Suites, their tasks, and the Gymnasium ids of these.

* :func:`register_suite` -- the one door that every suite comes in by: this package's, those that
  other packages name in the entry-point group :data:`GROUP`, and your own.
* The functions that :mod:`gato_gym.tasks` lists.
"""

from __future__ import annotations

import difflib
import fnmatch
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import gymnasium as gym

from gato_gym.tasks.suite import Suite
from gato_gym.tasks.task import NAMESPACE, Task, UnknownTaskError

GROUP = "gato_gym.suites"
"""Entry points of other packages, each the name of a suite and where its :class:`Suite` is."""

_suites: dict[str, Suite] = {}
_task_ids: dict[str, Task] = {}
_offered: list[EntryPoint] = []


def register_suite(suite: Suite) -> None:
    """Make a suite known: to :func:`get_task`, to ``gym.make("Gato/…")`` and to every command.

    Args:
        suite: The suite; the same one again is harmless.

    Raises:
        ValueError: Another suite of that name is registered.
    """
    registered = _suites.get(suite.name)
    if registered is suite:
        return
    if registered is not None:
        raise ValueError(
            f"a suite {suite.name!r} of {len(registered.tasks)} tasks is registered already: "
            "choose another name"
        )
    _suites[suite.name] = suite
    for task in suite.tasks:
        _task_ids[task.id] = task
        gym.register(
            id=f"{NAMESPACE}/{task.id}",
            entry_point="gato_gym.tasks:make_task_env",
            max_episode_steps=task.max_episode_steps,
            kwargs={"task_id": task.id},
            disable_env_checker=True,
        )


def register() -> None:
    """Register this package's suites, and those that installed packages offer."""
    from gato_gym.tasks import atari, babyai, dm_control, metaworld, mujoco

    for module in (atari, babyai, dm_control, metaworld, mujoco):
        register_suite(module.SUITE)
    _offered[:] = entry_points(group=GROUP)
    load_offered(last=False)


def load_offered(*, last: bool = True) -> None:
    """Register the suites that other packages offer and that are not registered yet.

    Args:
        last: Whether what fails is left out, with a warning. If not, the next look-up tries it
            again: its module, or one that it imports, may be importing this package now.
    """
    for entry in tuple(_offered):
        try:
            register_suite(entry.load())
            _offered.remove(entry)
        except Exception as error:  # of a package that is not ours
            if not last:
                continue
            _offered.remove(entry)
            warnings.warn(
                f"suite {entry.name!r} ({entry.value}) is left out, for it cannot be registered: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )


def _tasks() -> dict[str, Task]:
    load_offered()
    return _task_ids


def list_suites() -> tuple[str, ...]:
    """Names of the registered suites, sorted.

    Example:
        >>> [name for name in list_suites() if name.startswith("me")]
        ['metaworld']
    """
    load_offered()
    return tuple(sorted(_suites))


def get_suite(name: str) -> Suite:
    """The registered suite of this name.

    Raises:
        UnknownTaskError: There is none.
    """
    if name not in list_suites():
        raise UnknownTaskError(f"unknown suite {name!r}: expected one of {', '.join(_suites)}")
    return _suites[name]


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
        hint = (
            f"did you mean {', '.join(near)}?" if near else f"suites are {', '.join(list_suites())}"
        )
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
    of = _tasks().values() if suite is None else get_suite(suite).tasks
    chosen = sorted(of, key=lambda task: task.id)
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
