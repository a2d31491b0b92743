"""``gato-gym tasks``."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from gato_gym.commands.common import Command, Invocation
from gato_gym.listing import print_tasks


@dataclass(frozen=True)
class Tasks(Command):
    """List the tasks: observation, action, steps, expert, and the shipped networks that know them.

    Attributes:
        pattern: Ids or patterns, such as 'mujoco-*,*-reach'.
        suite: List the tasks of one suite.
    """

    pattern: Positional[str | None] = None
    suite: str | None = None

    def run(self, call: Invocation) -> None:
        print_tasks(self.suite, self.pattern)
