"""The tasks: environments with an id, a suite and a way to become tokens.

* :class:`Task` -- one task; ``task.make()`` gives its environment.
* :func:`get_task`, :func:`list_tasks`, :data:`SUITES` -- look tasks up.
* :func:`task_id_of` -- the task that an environment plays.
* :func:`register` -- makes every task a Gymnasium id, ``Gato/<task id>``.
"""

from gato_gym.tasks.registry import (
    SCRIPTED_SUITES,
    SUITES,
    get_task,
    list_tasks,
    make_task_env,
    register,
    task_id_of,
)
from gato_gym.tasks.task import MissingPackageError, Task, UnknownTaskError

__all__ = [
    "SCRIPTED_SUITES",
    "SUITES",
    "MissingPackageError",
    "Task",
    "UnknownTaskError",
    "get_task",
    "list_tasks",
    "make_task_env",
    "register",
    "task_id_of",
]
