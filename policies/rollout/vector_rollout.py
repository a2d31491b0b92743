"""Playing chosen episodes, several environments at a time, of one task or of several.

* :func:`play` -- plays exactly the given episodes of a task and yields each as it ends.
* :func:`play_one` -- plays one episode in an environment of the caller's.
* :class:`Rollout` -- batches that come and go; those of one network act together.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any

import gymnasium as gym

from policies.rollout.env_batch import EnvBatch, Envs, PolicyLike
from policies.rollout.episode import Record, longer_than, name_of
from policies.rollout.faults import FAULTS, EpisodeTimeout, UsageError, time_limit
from policies.rollout.outcomes import EpisodeKey, EpisodeResult, Outcome
from policies.rollout.shared_forward import SharedForward, shared_by
from policies.rollout.timing import Clock

IDLE_SHARE = 0.125
"""Share of a network's rows that may be idle before they are dropped, which copies the others."""


def play(
    envs: Envs,
    policy: PolicyLike,
    episodes: Sequence[EpisodeKey],
    *,
    deterministic: bool | None,
    stopped: Callable[[], bool] = lambda: False,
    episode_timeout: float | None = None,
    clock: Clock | None = None,
    guard: bool = True,
    record: Record | None = None,
) -> Generator[Outcome]:
    """Play every episode of ``episodes`` once.

    An environment whose episode ends takes up the next pending one. With none pending it is
    left alone: the policy, whose batch must keep its rows, is shown its last observation and
    what it answers there is ignored.

    Args:
        envs: From :func:`make_rows`, which are closed in the end; or a sequence of the caller's,
            which are not, the policy of a single one seeing single observations. Stepped one by
            one, so that none is stepped when done.
        policy: Plays all of them, as one batch of a row each.
        episodes: What to play.
        deterministic: Handed to ``predict``; None for an expert's own way.
        stopped: Asked before each timestep; True abandons the episodes under way.
        episode_timeout: Seconds that an environment may spend on an episode, its reset and all
            its steps together, and that the policy may spend on one action; None for ever.
        clock: Measures environments and inference.
        guard: Whether an error of an environment fails its episode alone, and one of the policy
            those under way; otherwise it is raised.
        record: Makes a recorder for each episode, which sees it and may perturb its actions.

    Yields:
        A result or a failure for each episode, in the order in which they end.

    Raises:
        UsageError: An environment cannot be used as it is asked for.
        ValueError: A policy gave what is no action, and there is no ``guard``.
    """
    rollout = Rollout(
        deterministic=deterministic,
        episode_timeout=episode_timeout,
        clock=clock,
        guard=guard,
        record=record,
    )
    yield from rollout.add(envs, policy, episodes)
    while rollout.active and not stopped():
        yield from rollout.step()


def play_one(
    env: gym.Env[Any, Any],
    policy: PolicyLike,
    seed: int,
    *,
    deterministic: bool | None,
    record: Record | None = None,
) -> float:
    """Play the episode of a seed in an environment of the caller's; its return.

    Args:
        env: Not closed. What it raises is raised.
        policy: Sees single observations.
        seed: Seed of the environment's reset and of the policy's draws.
        deterministic, record: As in :func:`play`.
    """
    key = EpisodeKey(name_of(env), 0, seed)
    outcomes = play([env], policy, [key], deterministic=deterministic, guard=False, record=record)
    (outcome,) = outcomes
    assert isinstance(outcome, EpisodeResult)
    return outcome.total_return


class Rollout:
    """Batches that come and go. Those whose policies are of one network act together.

    Args:
        deterministic: Handed to ``predict``; None for an expert's own way.
        rows: Rows that there should be in play at a time, which idle ones are counted against;
            None for as many as there are.
        episode_timeout, guard, record: As in :func:`play`.
        clock: Measures environments and inference.

    Attributes:
        batches: Environments in play.
    """

    def __init__(
        self,
        *,
        deterministic: bool | None,
        rows: int = 0,
        episode_timeout: float | None = None,
        clock: Clock | None = None,
        guard: bool = True,
        record: Record | None = None,
    ) -> None:
        self.batches: list[EnvBatch] = []
        self._deterministic, self._rows, self._timeout = deterministic, rows, episode_timeout
        self._clock, self._guard, self._record = clock or Clock(), guard, record
        self._shared_forwards: dict[Hashable, SharedForward] = {}

    @property
    def active(self) -> int:
        """Rows in which an episode is under way."""
        return sum(batch.active for batch in self.batches)

    def idle(self, task: str | None) -> int:
        """Rows of a task's environments in which none is."""
        return sum(batch.size - batch.active for batch in self.batches if batch.task == task)

    def add(
        self, envs: Envs, policy: PolicyLike, episodes: Sequence[EpisodeKey]
    ) -> Generator[Outcome]:
        """Begin episodes of a task in environments of their own; what failed at once."""
        batch = EnvBatch(
            envs,
            policy,
            episodes,
            clock=self._clock,
            episode_timeout=self._timeout,
            guard=self._guard,
            record=self._record,
        )
        self.batches.append(batch)
        yield from batch.take_up(*range(batch.size), fresh=True)

    def extend(self, episodes: Sequence[EpisodeKey]) -> Generator[Outcome, None, int]:
        """Begin episodes of a task in idle environments of it.

        Returns:
            How many of them there was room for.
        """
        begun = 0
        for batch in self.batches:
            idle = [row for row, episode in enumerate(batch.running) if episode is None]
            some = episodes[begun : begun + len(idle)]
            if some and batch.task == some[0].task:
                begun += len(some)
                batch.pending.extend(some)
                yield from batch.take_up(*idle)
        return begun

    def step(self) -> Generator[Outcome]:
        """One timestep of every row in which an episode is under way."""
        groups: dict[Hashable, list[EnvBatch]] = {}
        for batch in self.batches:
            groups.setdefault(shared_by(batch.policy) or id(batch), []).append(batch)
        for shared, batches in groups.items():
            if not any(batch.active for batch in batches):
                continue
            try:
                actions = self._predict(shared, batches)
            except FAULTS as error:
                fails = self._guard or isinstance(error, EpisodeTimeout)
                if not fails or isinstance(error, UsageError):
                    raise
                # It is unknown whose episode it was, and what is left of the state.
                self._shared_forwards.pop(shared, None)
                for batch in batches:
                    yield from batch.give_up(error)
                continue
            for batch, chosen in zip(batches, actions, strict=True):
                yield from batch.step(chosen)
        ended = [batch for batch in self.batches if not batch.active and not batch.shares]
        self._remove(ended)

    def close(self) -> None:
        """Close all environments."""
        self._remove(list(self.batches))

    def _remove(self, batches: Sequence[EnvBatch]) -> None:
        for batch in batches:
            self.batches.remove(batch)
            batch.close()

    def _predict(self, shared: Hashable, batches: list[EnvBatch]) -> list[list[Any]]:
        """An action for each row of each batch; ended batches are left out of ``batches``."""
        began, idle = self._clock.begin(), 0.0
        message = f"one action took the policy {longer_than(self._timeout)}"
        try:
            with time_limit(self._timeout, message):
                if not batches[0].shares:
                    (batch,) = batches
                    idle = 1 - batch.active / batch.size
                    return [batch.predict(deterministic=self._deterministic)]
                forward = self._arranged(shared, batches)
                size = sum(batch.size for batch in batches)
                idle = 1 - sum(batch.active for batch in batches) / max(size, self._rows)
                actions = forward.predict(
                    [batch.shown() for batch in batches],
                    [batch.seeds() for batch in batches],
                    [batch.take_starts() for batch in batches],
                    deterministic=bool(self._deterministic),
                )
                return [batch.split(each) for batch, each in zip(batches, actions, strict=True)]
        finally:
            self._clock.end("inference", began, idle=idle)

    def _arranged(self, shared: Hashable, batches: list[EnvBatch]) -> SharedForward:
        """The state of these batches' rows, without idle ones where they have become many."""
        forward = self._shared_forwards.setdefault(shared, SharedForward())
        size = sum(batch.size for batch in batches)
        idle = size - sum(batch.active for batch in batches)
        if [member for member, _ in forward.members] == batches and idle < IDLE_SHARE * size:
            return forward
        for batch in list(batches):
            if batch.active:
                batch.drop_idle()
            else:
                batches.remove(batch)
                self._remove([batch])
        forward.arrange([(batch, batch.policy, batch.take_places()) for batch in batches])
        return forward
