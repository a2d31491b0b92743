"""The tasks: environments with an id, a suite and a way to become tokens.

* :class:`Task` -- one task; ``task.make()`` gives its environment.
* :func:`get_task`, :func:`list_tasks`, :func:`list_suites`, :func:`get_suite` -- look-up.
* :func:`task_id_of` -- the task that an environment plays.
* :class:`Suite`, :func:`register_suite` -- tasks with their experts, recipes and reference scores;
  every task becomes a Gymnasium id, ``Gato/<task id>``.
"""

from gato_gym.tasks.registry import (
    get_suite,
    get_task,
    list_suites,
    list_tasks,
    load_offered,
    make_task_env,
    register,
    register_suite,
    task_id_of,
)
from gato_gym.tasks.suite import Suite, resolve
from gato_gym.tasks.task import MissingPackageError, Task, UnknownTaskError

__all__ = [
    "MissingPackageError",
    "Suite",
    "Task",
    "UnknownTaskError",
    "get_suite",
    "get_task",
    "list_suites",
    "list_tasks",
    "load_offered",
    "make_task_env",
    "register",
    "register_suite",
    "resolve",
    "task_id_of",
]
