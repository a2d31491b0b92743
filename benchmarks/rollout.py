"""Playing chosen episodes, several environments at a time, of one task or of several.

* :func:`play` -- plays exactly the given episodes of a task and yields each as it ends.
* :class:`Rollout` -- tables that come and go; those of one network act together.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any

from gymnasium.vector import SyncVectorEnv

from benchmarks.clock import Clock
from benchmarks.faults import EpisodeTimeout, time_limit
from benchmarks.protocol import EpisodeKey, Outcome
from benchmarks.tables import Predictor, Table, longer_than
from benchmarks.together import Together, shared_by

IDLE_SHARE = 0.25
"""Share of a network's rows that may be idle before they are dropped, which copies the others."""


def play(
    envs: SyncVectorEnv,
    policy: Predictor,
    episodes: Sequence[EpisodeKey],
    *,
    deterministic: bool | None,
    stopped: Callable[[], bool] = lambda: False,
    episode_timeout: float | None = None,
    clock: Clock | None = None,
) -> Generator[Outcome]:
    """Play every episode of ``episodes`` once.

    An environment whose episode ends takes up the next pending one. With none pending it is
    left alone: the policy, whose batch must keep its rows, is shown its last observation and
    what it answers there is ignored.

    Args:
        envs: From :func:`make_rows`. Stepped one by one, so that none is stepped when done.
        policy: Plays all of them, as one batch of ``envs.num_envs`` rows.
        episodes: What to play.
        deterministic: Handed to ``predict``; None for an expert's own way.
        stopped: Asked before each timestep; True abandons the episodes under way.
        episode_timeout: Seconds that an environment may spend on an episode, its reset and all
            its steps together, and that the policy may spend on one action; None for ever.
        clock: Measures environments and inference.

    Yields:
        A result or a failure for each episode, in the order in which they end.

    Raises:
        BenchmarkError: An environment cannot be used as it is asked for.
    """
    rollout = Rollout(deterministic=deterministic, episode_timeout=episode_timeout, clock=clock)
    yield from rollout.add(envs, policy, episodes)
    while rollout.active and not stopped():
        yield from rollout.step()


class Rollout:
    """Tables that come and go. Those whose policies are of one network act together.

    Args:
        deterministic: Handed to ``predict``; None for an expert's own way.
        rows: Rows that there should be in play at a time, which idle ones are counted against;
            None for as many as there are.
        episode_timeout: As in :func:`play`.
        clock: Measures environments and inference.

    Attributes:
        tables: Environments in play.
    """

    def __init__(
        self,
        *,
        deterministic: bool | None,
        rows: int = 0,
        episode_timeout: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.tables: list[Table] = []
        self._deterministic, self._rows, self._timeout = deterministic, rows, episode_timeout
        self._clock = clock or Clock()
        self._together: dict[Hashable, Together] = {}

    @property
    def active(self) -> int:
        """Rows in which an episode is under way."""
        return sum(table.active for table in self.tables)

    def idle(self, task: str | None) -> int:
        """Rows of a task's environments in which none is."""
        return sum(table.size - table.active for table in self.tables if table.task == task)

    def add(
        self, envs: SyncVectorEnv, policy: Predictor, episodes: Sequence[EpisodeKey]
    ) -> Generator[Outcome]:
        """Begin episodes of a task in environments of their own; what failed at once."""
        table = Table(envs, policy, episodes, self._timeout, self._clock)
        self.tables.append(table)
        yield from table.take_up(*range(envs.num_envs), fresh=True)

    def extend(self, episodes: Sequence[EpisodeKey]) -> Generator[Outcome, None, int]:
        """Begin episodes of a task in idle environments of it.

        Returns:
            How many of them there was room for.
        """
        begun = 0
        for table in self.tables:
            idle = [row for row, episode in enumerate(table.running) if episode is None]
            some = episodes[begun : begun + len(idle)]
            if some and table.task == some[0].task:
                begun += len(some)
                table.pending.extend(some)
                yield from table.take_up(*idle)
        return begun

    def step(self) -> Generator[Outcome]:
        """One timestep of every row in which an episode is under way."""
        groups: dict[Hashable, list[Table]] = {}
        for table in self.tables:
            groups.setdefault(shared_by(table.policy) or id(table), []).append(table)
        for shared, tables in groups.items():
            if not any(table.active for table in tables):
                continue
            try:
                actions = self._predict(shared, tables)
            except EpisodeTimeout as error:
                # Whose episode it was cannot be told, nor what is left of the state.
                self._together.pop(shared, None)
                for table in tables:
                    yield from table.give_up(error)
                continue
            for table, chosen in zip(tables, actions, strict=True):
                yield from table.step(chosen)
        ended = [table for table in self.tables if not table.active and not table.shares]
        self._remove(ended)

    def close(self) -> None:
        """Close all environments."""
        self._remove(list(self.tables))

    def _remove(self, tables: Sequence[Table]) -> None:
        for table in tables:
            self.tables.remove(table)
            table.close()

    def _predict(self, shared: Hashable, tables: list[Table]) -> list[Any]:
        """Actions of each table's rows; tables that have ended are left out of ``tables``."""
        began, idle = self._clock.begin(), 0.0
        message = f"one action took the policy {longer_than(self._timeout)}"
        try:
            with time_limit(self._timeout, message):
                if not tables[0].shares:
                    (table,) = tables
                    idle = 1 - table.active / table.size
                    return [table.predict(deterministic=self._deterministic)]
                together = self._arranged(shared, tables)
                size = sum(table.size for table in tables)
                idle = 1 - sum(table.active for table in tables) / max(size, self._rows)
                actions = together.predict(
                    [table.shown() for table in tables],
                    [table.seeds() for table in tables],
                    [table.take_starts() for table in tables],
                    deterministic=bool(self._deterministic),
                )
                return actions
        finally:
            self._clock.end("inference", began, idle=idle)

    def _arranged(self, shared: Hashable, tables: list[Table]) -> Together:
        """The state of these tables' rows, without idle ones where they have become many."""
        together = self._together.setdefault(shared, Together())
        size = sum(table.size for table in tables)
        idle = size - sum(table.active for table in tables)
        if [member for member, _ in together.members] == tables and idle < IDLE_SHARE * size:
            return together
        for table in list(tables):
            if table.active:
                table.drop_idle()
            else:
                tables.remove(table)
                self._remove([table])
        together.arrange([(table, table.policy, table.take_places()) for table in tables])
        return together
