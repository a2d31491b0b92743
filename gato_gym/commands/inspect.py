"""``gato-gym inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from gato_gym.commands.common import Command, Invocation
from gato_gym.commands.flags import flag
from gato_gym.inspection import inspect_environment
from gato_gym.ranges import check_range
from gato_gym.terminal import new_console


@dataclass(frozen=True)
class Inspect(Command):
    """Print how an environment becomes tokens: a row for each part of a timestep.

    Attributes:
        environment: Such as Gato/babyai-go-to-local, or ale_py:ALE/Pong-v5 to import its module
            first.
        layout: Layout of the tokens; by default the task's own, or lean.
        window: Tokens of a window.
        seed: Seed of the episode.
        image: Draw one timestep: a .png, .svg or .pdf file.
    """

    environment: Annotated[Positional[str], flag(metavar="ENV_ID")]
    layout: Literal["paper", "lean"] | None = None
    window: int = 1024
    seed: int = 0
    image: Path | None = None

    def __post_init__(self) -> None:
        check_range(self, "window", low=1)
        check_range(self, "seed")

    def run(self, call: Invocation) -> None:
        inspection = inspect_environment(
            self.environment, layout=self.layout, seed=self.seed, render=self.image is not None
        )
        console = new_console()  # folds the table to the terminal's width
        console.print(inspection.table())
        console.print(inspection.summary(self.window), highlight=False, soft_wrap=True)
        if self.image is not None:
            from gato_gym.picture import draw

            draw(inspection, self.image, window=self.window)
            console.print(f"drew {self.image}", highlight=False, soft_wrap=True)
