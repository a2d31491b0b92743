"""``gato-gym import``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from gato_gym.commands.common import Command, Invocation
from gato_gym.commands.flags import flag


@dataclass(frozen=True)
class ImportRows(Command):
    """Turn rows of the JAT dataset's schema, one an episode, into a Minari dataset.

    Attributes:
        source: A .parquet or .jsonl file, a folder, or jat:CONFIGURATION of the hub.
        dataset: Id of the new dataset, such as jat/halfcheetah-v0.
        env: Environment that gives spaces and id; by default they are inferred.
        overwrite: Replace a dataset of this id.
    """

    source: Positional[str]
    dataset: Annotated[str, flag(metavar="ID")]
    env: Annotated[str | None, flag(metavar="ENV_ID")] = None
    overwrite: bool = False

    def run(self, call: Invocation) -> None:
        import gato_gym
        from gato_gym.episodes.jat import import_rows, read_rows

        env = None if self.env is None else gato_gym.make(self.env)
        returns = import_rows(read_rows(self.source), self.dataset, env=env, replace=self.overwrite)
        mean = sum(returns) / len(returns)
        call.console.print(
            f"{self.dataset}: {len(returns)} episodes, mean return {mean:.2f}", highlight=False
        )
