"""The tasks as a table: ``gato-gym tasks``.

* :func:`print_tasks` -- prints it.
* :func:`task_rows` -- its rows.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from gato_gym.files.bounded_io import read_json
from gato_gym.tasks import get_suite, list_tasks
from gato_gym.terminal import new_console


@dataclass(frozen=True)
class TaskRow:
    """A task as ``gato-gym tasks`` lists it.

    Attributes:
        id: Id of the task.
        observation: Its observations, in words.
        action: Its actions, in words.
        steps: Longest episode; None if the environment sets a limit for each episode.
        expert: What kind of program, such as "bot"; the algorithm that trained the shipped expert;
            or None.
        networks: Names of the shipped checkpoints that know the task.
    """

    id: str
    observation: str
    action: str
    steps: int | None
    expert: str | None
    networks: tuple[str, ...]


def task_rows(suite: str | None = None, pattern: str | None = None) -> list[TaskRow]:
    """Rows of the tasks that :func:`gato_gym.tasks.list_tasks` finds.

    What is shipped is read from the files of the package ``policies``, which is not imported.

    Raises:
        UnknownTaskError: As ``list_tasks``.
    """
    spec = importlib.util.find_spec("policies")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path("policies")
    known = {
        path.parent.name: frozenset(read_json(path)["tasks"])
        for path in sorted(folder.glob("checkpoints/*/config.json"))
    }
    rows = []
    for task in list_tasks(suite, pattern):
        its = get_suite(task.suite)
        expert = None if its.expert is None else its.expert_kind
        trained = (its.trained or folder / "experts" / "trained") / task.id / "config.json"
        if expert is None and trained.is_file():
            expert = str(read_json(trained)["algorithm"])
        networks = tuple(name for name, tasks in known.items() if task.id in tasks)
        rows.append(
            TaskRow(
                task.id, task.observation, task.action, task.max_episode_steps, expert, networks
            )
        )
    return rows


def print_tasks(suite: str | None = None, pattern: str | None = None) -> None:
    """Print the table, and how to train the experts that are missing.

    Raises:
        UnknownTaskError: As ``list_tasks``.
    """
    rows, console = task_rows(suite, pattern), new_console()
    table = Table(box=None, pad_edge=False)
    for name in ("task", "observation", "action", "steps", "expert", "network"):
        table.add_column(
            name, justify="right" if name == "steps" else "left", no_wrap=name == "task"
        )
    for row in rows:
        steps = "varies" if row.steps is None else str(row.steps)
        networks = ", ".join(row.networks)
        said = (part or "-" for part in (row.observation, row.action, steps, row.expert, networks))
        table.add_row(row.id, *said)
    console.print(table, highlight=False)
    missing = sum(row.expert is None for row in rows)
    console.print(f"{len(rows)} tasks", highlight=False)
    if missing:
        console.print(
            f"{missing} without an expert: gato-gym expert train TASK trains one",
            highlight=False,
            soft_wrap=True,
        )
