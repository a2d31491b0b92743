"""Who plays, and in which environments.

* :class:`PolicyChoice` -- which policy, and how it is asked to act.
* :func:`make_envs_and_policy` -- a task's environments and the policy that plays in them.
* :class:`EpisodeWorker` -- plays episodes that it is given, as long as there are some.
* :func:`reports` -- what a worker in another process reports.

A policy on the CPU uses one thread in every case, so that its arithmetic is the same for any
number of workers.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv

from benchmarks.policies import PolicyChoice, is_network
from benchmarks.protocol import BenchmarkError
from policies.processes import WorkerFailure
from policies.registry import BUILT_IN
from policies.rollout.env_batch import make_rows
from policies.rollout.faults import FAULTS, EnvironmentFault, describe
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, Outcome
from policies.rollout.timing import Clock, TimeSpent, with_clock
from policies.rollout.vector_rollout import IDLE_SHARE, Rollout

if TYPE_CHECKING:
    from gato_gym.tasks import Task

MAX_ROWS = 32
"""Environments that a process plays at a time, when ``--num-envs`` is not given: as many as the
network policies compute in one block."""

FEW_ROWS = 4
"""The same for experts and chance, who choose row by row: more would only take longer to make."""

Report = Outcome | TimeSpent
"""What playing yields: an episode that has ended, and what was spent since the last report."""


class Take(Protocol):
    """Where a worker has its episodes from:
    :meth:`benchmarks.workers.scheduler.EpisodeScheduler.take`.
    """

    def __call__(self, rows: int, task: str | None = None, /) -> tuple[EpisodeKey, ...]:
        """Up to ``rows`` episodes of one task; none when none are left."""


class EpisodeWorker:
    """Plays episodes that it is given, loading the policy's weights once.

    As soon as rows are free it asks for more episodes of the task in hand. A network takes up the
    next task beside it when a share of its rows is free, and plays both in one forward; other
    policies first play the task in hand to its end, for their rows cannot be moved.

    Args:
        choice: The policy.
        num_envs: Environments at a time; None chooses.
    """

    def __init__(self, choice: PolicyChoice, num_envs: int | None = None) -> None:
        few = choice.name in BUILT_IN
        self.choice, self.rows = choice, num_envs or (FEW_ROWS if few else MAX_ROWS)
        self.clock = Clock()
        self._policy: Any = None

    def play(self, take: Take, stopped: Callable[[], bool]) -> Generator[Report]:
        """Play until nothing is given any more.

        Args:
            take: Gives episodes.
            stopped: Asked before each timestep; True abandons the episodes under way.

        Yields:
            Results and failures as episodes end, and the time spent.

        Raises:
            BenchmarkError: A task or the policy cannot be made.
        """
        rollout = Rollout(
            deterministic=self.choice.deterministic,
            rows=self.rows,
            episode_timeout=self.choice.episode_timeout,
            clock=self.clock,
        )
        more = True
        task: str | None = None
        try:
            while not stopped():
                free = self.rows - rollout.active
                anything = more and free >= self._least(rollout)
                room = free if anything else rollout.idle(task)
                if room:
                    keys = take(room, None if anything else task)
                    more, task = more and bool(keys or not anything), keys[0].task if keys else None
                    if keys:
                        yield from self._measured(self._seat(rollout, keys))
                        continue
                if not rollout.active:
                    break
                yield from self._measured(rollout.step())
        finally:
            rollout.close()
        yield self.clock.lap()

    def _least(self, rollout: Rollout) -> int:
        """Free rows that are enough for another task."""
        shares = any(batch.shares for batch in rollout.batches)
        return max(1, int(self.rows * IDLE_SHARE)) if shares else self.rows

    def _measured(self, outcomes: Generator[Outcome]) -> Generator[Report]:
        for outcome in outcomes:
            yield outcome
            yield self.clock.lap()

    def _seat(self, rollout: Rollout, keys: tuple[EpisodeKey, ...]) -> Generator[Outcome]:
        """Begin episodes of a task, in its environments and in new ones."""
        begun = yield from rollout.extend(keys)
        left = keys[begun:]
        if not left:
            return
        try:
            envs, policy = self._prepare(left[0], len(left))
        except EnvironmentFault as error:
            for key in left:
                yield EpisodeFailure(key, describe(error))
            return
        yield from rollout.add(envs, policy, left)

    def _prepare(self, key: EpisodeKey, rows: int) -> tuple[SyncVectorEnv, Any]:
        from gato_gym.tasks import get_task

        def make(task: Task) -> SyncVectorEnv:
            with self.clock.of("environments"):
                return make_rows(task, rows, key.disturbance)

        with self.clock.of("loading"):
            task = get_task(key.task)
            envs, self._policy = make_envs_and_policy(self.choice, task, make, loaded=self._policy)
            return envs, with_clock(self._policy, self.clock)


def make_envs_and_policy(
    choice: PolicyChoice,
    task: Task,
    make_envs: Callable[[Task], SyncVectorEnv],
    *,
    loaded: Any = None,
) -> tuple[SyncVectorEnv, Any]:
    """A task's environments, and the policy that plays in them with one thread.

    Args:
        choice: Which policy.
        task: The task.
        make_envs: Makes the environments.
        loaded: The policy of an earlier call with the same choice, whose weights are used again.

    Raises:
        BenchmarkError: The policy cannot be made, or what the environments need is missing.
        EnvironmentFault: The environments cannot be made for a reason of their own.
    """
    from policies.registry import make_policy

    try:
        envs = make_envs(task)
    except (BenchmarkError, ImportError, gym.error.Error) as error:
        raise BenchmarkError(f"{task.id}: {error}") from error
    except FAULTS as error:
        raise EnvironmentFault(f"{task.id} cannot be made: {error!r}") from error
    try:
        policy: Any
        if hasattr(loaded, "with_env") and is_network(choice.name):
            policy = loaded.with_env(envs, prompt=choice.prompt, cut=choice.prompt_cut)
        else:
            policy = make_policy(
                choice.name,
                env=envs,
                seed=choice.seed,
                device=choice.device,
                precision=choice.precision,
                prompt=choice.prompt,
                cut=choice.prompt_cut,
                demonstrations=choice.demonstrations,
                demonstration_episodes=choice.shown,
            )
    except (ValueError, KeyError, OSError, ImportError, gym.error.Error) as error:
        message = str(error.args[0]) if isinstance(error, KeyError) else str(error)
        raise BenchmarkError(f"{task.id}, policy {choice.name}: {message}") from error
    except FAULTS as error:
        raise BenchmarkError(
            f"{task.id}, policy {choice.name} cannot be made ({error!r}): expected a policy; mend "
            "what makes it, or leave it out"
        ) from error
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return envs, policy


def reports(
    player: EpisodeWorker, take: Take, stopped: Callable[[], bool]
) -> Generator[Report | WorkerFailure]:
    """As :meth:`EpisodeWorker.play`, with the error that ends it as the last word."""
    try:
        yield from player.play(take, stopped)
    except BenchmarkError as error:
        yield WorkerFailure(str(error), asked_wrongly=True)
    except FAULTS:
        yield WorkerFailure(f"a worker failed:\n{traceback.format_exc()}")
