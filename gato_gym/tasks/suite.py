"""What a suite is: tasks, and everything that the commands know about them.

* :class:`Suite` -- its tasks with their experts, recipes and reference scores.
* :func:`resolve` -- what ``module:attribute`` names.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gato_gym.tasks.task import Task

MEASURED = "benchmarks:references/measured.json"
"""Where the reference scores of this package's suites are."""


@dataclass(frozen=True)
class Suite:
    """A suite of tasks; :func:`gato_gym.register_suite` makes every command know it.

    What must not be imported with the tasks may be named as ``module:attribute``.

    Attributes:
        name: Lower-case letters, digits and ``_``; the ids of its tasks are ``<name>-…``.
        tasks: Its tasks; each has ``suite=name``.
        title: Its name in reports.
        simulators: Packages whose versions decide its episodes, beside Gymnasium's wrappers.
        expert: Called with a :class:`Task` and an environment or a vector environment of it;
            returns a ``policies.Policy``. None: experts are networks trained by ``recipes``.
        expert_kind: What ``gato-gym tasks`` calls that expert, such as "bot".
        recipes: ``policies.expert_training.recipe.Recipe`` by task id, the first trained first.
        trained: Folder of trained experts, one for each task; None for those in this package.
        references: A JSON file of random and expert returns, which ``python -m benchmarks.experts``
            writes; also ``package:path``. None: its scores are not normalised.
        rules: Values that decide what a score means and are in no task, such as frames that an
            action lasts. A protocol's hash covers them.
        unit_episodes: Attempts that ``gato-gym collect`` plays at a time: a few seconds of work.
        navigation: Whether the actions are MiniGrid's seven. Noise then mostly turns and moves, and
            an expert that chooses ``done`` has lost its way.

    Raises:
        ValueError: The name, or the id of a task, is of another form.

    Example:
        >>> from gato_gym import get_suite
        >>> len(get_suite("metaworld").tasks), get_suite("metaworld").expert_kind
        (50, 'script')
    """

    name: str
    tasks: tuple[Task, ...]
    title: str = ""
    simulators: tuple[str, ...] = ()
    expert: str | Callable[[Task, Any], Any] | None = field(default=None, repr=False)
    expert_kind: str = "program"
    recipes: str | Mapping[str, Any] = field(default_factory=dict, repr=False)
    trained: Path | None = None
    references: Path | str | None = None
    rules: Mapping[str, Any] = field(default_factory=dict, repr=False)
    unit_episodes: int = 4
    navigation: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name) or self.name == "all":
            raise ValueError(
                f"suite name is {self.name!r}: expected lower-case letters, digits and _, and "
                "not 'all'"
            )
        if not self.tasks:
            raise ValueError(f"suite {self.name!r} has no tasks: expected one or more")
        for task in self.tasks:
            if task.suite != self.name or not task.id.startswith(f"{self.name}-"):
                raise ValueError(
                    f"task {task.id!r} of suite {task.suite!r} is in suite {self.name!r}: expected "
                    f"an id '{self.name}-…' and suite={self.name!r}"
                )

    @property
    def references_path(self) -> Path | None:
        """The file of :attr:`references`; it need not exist."""
        if not isinstance(self.references, str):
            return self.references
        package, _, path = self.references.rpartition(":")
        spec = find_spec(package) if package else None
        folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
        return folder / path


def resolve(what: Any) -> Any:
    """What ``module:attribute`` names, imported; anything else as it is.

    Raises:
        ImportError, AttributeError: There is no such module, or it has no such attribute.

    Example:
        >>> resolve("math:pi"), resolve(3)
        (3.141592653589793, 3)
    """
    if not isinstance(what, str):
        return what
    module, _, attribute = what.partition(":")
    return getattr(importlib.import_module(module), attribute)
