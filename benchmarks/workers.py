"""Who plays what: units of work, and the processes that play them.

* :class:`PolicyChoice` -- which policy, and how it is asked to act.
* :class:`Unit` -- episodes of one task, played by one process.
* :func:`split_units` -- the units of a run.
* :func:`play_units` -- plays them all and yields each episode as it ends.
* :func:`make_player` -- a task's environments and the policy that plays in them.

A policy on the CPU uses one thread in every case, so that its arithmetic is the same for any
number of workers.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv

from benchmarks.clock import Clock, TimeSpent, with_clock
from benchmarks.faults import EnvironmentFault, describe
from benchmarks.protocol import BenchmarkError, EpisodeFailure, EpisodeKey, Outcome
from benchmarks.rollout import make_rows, play
from policies.threads import one_thread

if TYPE_CHECKING:
    from gato_gym.tasks import Task

MAX_ROWS = 32
"""Environments of one task played at a time, when ``--num-envs`` is not given: as many as the
network policies compute in one block."""


@dataclass(frozen=True)
class PolicyChoice:
    """Which policy plays, and how.

    Attributes:
        name: ``random``, ``expert``, a shipped name, a checkpoint folder, a hub id, or
            ``module:factory`` (:mod:`policies.factories`).
        prompt: ``shipped``, ``none``, or what :func:`policies.prompts.demonstration` takes.
        prompt_cut: Which part of a demonstration that is too long is kept, ``end`` or ``start``;
            None refuses one.
        deterministic: The most likely action instead of a sample.
        seed: Seed of the policy's own random numbers.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: Of a network's weights, see :mod:`policies.precision`.
        episode_timeout: Seconds an environment may spend on an episode; None for ever.
    """

    name: str
    prompt: str = "shipped"
    prompt_cut: str | None = None
    deterministic: bool = False
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    episode_timeout: float | None = None


@dataclass(frozen=True)
class Unit:
    """Episodes of one task.

    Attributes:
        task: Task id.
        episodes: What to play.
        num_envs: Environments to play them in.
    """

    task: str
    episodes: tuple[EpisodeKey, ...]
    num_envs: int


Report = Outcome | TimeSpent
"""What playing tells: an episode that has ended, and what was spent since the last report."""


class WorkerError(RuntimeError):
    """A unit could not be played to its end; the message names it and holds the traceback."""


def split_units(
    pending: Mapping[str, Sequence[EpisodeKey]], *, workers: int, num_envs: int | None
) -> list[Unit]:
    """Divide episodes among processes.

    A unit is a task, unless there are fewer tasks than workers: then tasks are cut in as many
    parts as it takes for every worker to have one.

    Args:
        pending: Episodes to play, by task id.
        workers: Number of processes.
        num_envs: Most environments of a unit; None means :data:`MAX_ROWS`.

    Returns:
        Units in the order of ``pending``; tasks without episodes have none.
    """
    tasks = {task: episodes for task, episodes in pending.items() if episodes}
    units = []
    for task, episodes in tasks.items():
        parts = min(-(-workers // len(tasks)), len(episodes))
        size = -(-len(episodes) // parts)
        for first in range(0, len(episodes), size):
            part = tuple(episodes[first : first + size])
            units.append(Unit(task, part, min(num_envs or MAX_ROWS, len(part))))
    return units


def play_units(units: Sequence[Unit], choice: PolicyChoice, *, workers: int) -> Generator[Report]:
    """Play all units, in this process or in several.

    Closing the iterator, or an exception in its consumer, stops the processes.

    Args:
        units: What to play, the first ones first.
        choice: The policy; every process makes its own.
        workers: Number of processes; 1 plays in this one.

    Yields:
        Results and failures as episodes end, and the time spent; their order depends on
        ``workers``.

    Raises:
        BenchmarkError: A task or the policy cannot be made.
        WorkerError: A worker process failed or was killed.
    """
    workers = min(workers, len(units))
    if workers <= 1:
        with one_thread():
            player = _Player(choice)
            for unit in units:
                yield from player.play(unit, lambda: False)
        return
    context = multiprocessing.get_context("spawn")
    pending: Any = context.Queue()
    done: Any = context.Queue()
    stop = context.Event()
    for item in (*units, *[None] * workers):
        pending.put(item)
    processes = [
        context.Process(target=_work, args=(choice, pending, done, stop, os.getpid()), daemon=True)
        for _ in range(workers)
    ]
    with one_thread():  # what a child's environment variables say, its libraries read at import
        for process in processes:
            process.start()
    try:
        yield from _collect(processes, done)
    finally:
        stop.set()
        pending.cancel_join_thread()
        for process in processes:
            process.join(timeout=10.0)
            if process.is_alive():
                process.terminate()


class _Player:
    """Plays units one after another, loading the policy's weights once."""

    def __init__(self, choice: PolicyChoice) -> None:
        self.choice = choice
        self.policy: Any = None
        self.clock = Clock()

    def play(self, unit: Unit, stopped: Callable[[], bool]) -> Generator[Report]:
        ended = set()
        try:
            for outcome in self._play(unit, stopped):
                ended.add(outcome.key)
                yield outcome
                yield self.clock.lap()
        except EnvironmentFault as error:
            for key in unit.episodes:
                if key not in ended:
                    yield EpisodeFailure(key, describe(error))
        yield self.clock.lap()

    def _play(self, unit: Unit, stopped: Callable[[], bool]) -> Generator[Outcome]:
        envs, policy = self._prepare(unit)
        try:
            yield from play(
                envs,
                policy,
                unit.episodes,
                deterministic=self.choice.deterministic,
                stopped=stopped,
                episode_timeout=self.choice.episode_timeout,
                clock=self.clock,
            )
        finally:
            with contextlib.suppress(Exception), self.clock.of("environments"):
                envs.close()  # what was played is not worth less where this fails

    def _prepare(self, unit: Unit) -> tuple[Any, Any]:
        from gato_gym.tasks import get_task

        def make(task: Task) -> SyncVectorEnv:
            with self.clock.of("environments"):
                return make_rows(task, unit.num_envs)

        with self.clock.of("loading"):
            task = get_task(unit.task)
            envs, self.policy = make_player(self.choice, task, make, loaded=self.policy)
            return envs, with_clock(self.policy, self.clock)


def make_player(
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
    from policies import make_policy
    from policies.factories import is_factory

    try:
        envs = make_envs(task)
    except (BenchmarkError, ImportError, gym.error.Error) as error:
        raise BenchmarkError(f"{task.id}: {error}") from error
    except Exception as error:
        raise EnvironmentFault(f"{task.id} cannot be made: {error}") from error
    try:
        policy: Any
        if hasattr(loaded, "with_env") and not is_factory(choice.name):
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
            )
    except (ValueError, KeyError, OSError, ImportError, gym.error.Error) as error:
        message = str(error.args[0]) if isinstance(error, KeyError) else str(error)
        raise BenchmarkError(f"{task.id}, policy {choice.name}: {message}") from error
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return envs, policy


@dataclass(frozen=True)
class _Failure:
    """What a worker process says when it cannot go on."""

    message: str
    asked_wrongly: bool


def _work(choice: PolicyChoice, pending: Any, done: Any, stop: Any, parent: int) -> None:
    """The main function of a worker process; sends results, then None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    player = _Player(choice)

    def stopped() -> bool:
        return bool(stop.is_set()) or os.getppid() != parent

    while not stopped() and (unit := pending.get()) is not None:
        try:
            for result in player.play(unit, stopped):
                done.put(result)
        except BenchmarkError as error:
            done.put(_Failure(str(error), asked_wrongly=True))
            return
        except Exception:
            text = f"task {unit.task} failed:\n{traceback.format_exc()}"
            done.put(_Failure(text, asked_wrongly=False))
            return
    done.put(None)


def _collect(processes: Sequence[Any], done: Any) -> Generator[Report]:
    working = len(processes)
    while working:
        try:
            message = done.get(timeout=1.0)
        except queue.Empty:
            killed = [process for process in processes if process.exitcode not in (None, 0)]
            if killed:
                raise WorkerError(
                    f"a worker process ended with exit code {killed[0].exitcode}, expected 0: it "
                    "may have run out of memory; try fewer --workers or --num-envs"
                ) from None
            continue
        if message is None:
            working -= 1
        elif isinstance(message, _Failure):
            raise (BenchmarkError if message.asked_wrongly else WorkerError)(message.message)
        else:
            yield message
