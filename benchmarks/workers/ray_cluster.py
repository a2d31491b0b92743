"""A run on the machines of a Ray cluster: ``--workers ray``.

* :func:`play_on_cluster` -- as :func:`benchmarks.workers.processes.play_episodes`, with actors for
  processes.

With ``RAY_ADDRESS`` set (``auto`` for a cluster that this machine is part of) it connects to that
cluster; without, it starts one of this machine's cores that nothing outside can reach, and stops
it in the end. What an actor had under way when it was killed is played again by another.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError, differences, listed
from benchmarks.store.run_store import installed_environment
from benchmarks.workers.common import collect
from benchmarks.workers.scheduler import EpisodeScheduler
from benchmarks.workers.worker import EpisodeWorker, Report, reports
from policies.processes import Ended, WorkerFailure
from policies.rollout.faults import can_limit, time_limit
from policies.rollout.outcomes import EpisodeKey
from policies.threads import available_cores, one_thread

_OWN_CLUSTER = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens on this machine alone, despite its name
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # as other workers; Ray's default gives way to everything
}
"""Environment variables of a cluster that is started here, which Ray reads when it is imported."""

ANSWER_SECONDS, CONNECT_SECONDS = 10.0, 120.0
"""How long the machine at ``RAY_ADDRESS`` may take to answer, and Ray there, or here, to begin."""


def play_on_cluster(
    pending: Mapping[str, Sequence[EpisodeKey]],
    choice: PolicyChoice,
    *,
    num_envs: int | None = None,
) -> Generator[Report]:
    """Play all episodes, with an actor for each core of the cluster, or each GPU.

    Closing the iterator, or an exception in its consumer, stops the actors.

    Args:
        pending: What to play, by task id, the first tasks first.
        choice: The policy; every actor makes its own. A checkpoint's folder must be there on every
            machine, and with ``device="cuda"`` every actor has a GPU.
        num_envs: Environments that an actor plays at a time; None chooses.

    Yields:
        Results and failures as episodes end, and the time spent.

    Raises:
        BenchmarkError: Ray is not installed, the cluster cannot be reached or has other versions
            installed, or a task or the policy cannot be made.
        WorkerError: An actor failed, or was killed again and again.
    """
    total = sum(map(len, pending.values()))
    if not total:
        return
    with _connected() as ray:
        resource = "GPU" if choice.device == "cuda" else "CPU"
        workers = min(total, int(ray.cluster_resources().get(resource, 0)))
        if not workers:
            raise BenchmarkError(
                f"the Ray cluster has no {resource}, expected one or more: add machines to it, or "
                "pass another --device"
            )
        pool = _Actors(ray, pending, choice, num_envs, workers=workers)
        try:
            yield from collect(pool, workers)
        finally:
            pool.stop()


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray, connected to a cluster."""
    outside = os.environ.get("RAY_ADDRESS")
    if not outside:
        for name, value in _OWN_CLUSTER.items():
            os.environ.setdefault(name, value)
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise BenchmarkError(
            '--workers ray needs Ray, which is not installed: pip install "gato-gym[ray]"'
        ) from error
    if ray.is_initialized():
        yield ray
        return
    sizes = {} if outside else {"num_cpus": available_cores(), "include_dashboard": False}
    try:
        if outside:
            _check_address(outside)
        too_long = f"it does not answer within {CONNECT_SECONDS:g} s"
        with one_thread(), time_limit(CONNECT_SECONDS if can_limit() else None, too_long):
            ray.init(outside or "local", log_to_driver=False, logging_level=logging.ERROR, **sizes)
    except (OSError, RuntimeError, ValueError) as error:
        raise BenchmarkError(
            f"no Ray cluster: {error}; set RAY_ADDRESS to one that runs, or unset it to have one "
            "started here"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would try it for ever.

    Raises:
        OSError: Nothing answers there.
    """
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()


class _Worker:
    """An actor that plays. Its methods run in the main thread, where time limits need to be."""

    def __init__(
        self, choice: PolicyChoice, num_envs: int | None, versions: Mapping[str, str]
    ) -> None:
        self._worker, self._versions = EpisodeWorker(choice, num_envs), versions

    def play(self, number: int, scheduler: Any) -> Generator[Report | WorkerFailure]:
        """Everything that the scheduler gives."""
        ray: Any = importlib.import_module("ray")
        parted = differences(dict(self._versions), installed_environment())
        if parted:
            message = (
                f"a machine of the Ray cluster has other versions installed ({listed(parted)})"
            )
            yield WorkerFailure(f"{message}: install the same on all", asked_wrongly=True)
            return

        def take(rows: int, task: str | None = None) -> tuple[EpisodeKey, ...]:
            keys: tuple[EpisodeKey, ...] = ray.get(scheduler.take.remote(number, rows, task))
            return keys

        yield from reports(self._worker, take, lambda: False)


class _Actors:
    """Actors, by the stream of each one's reports, and the scheduler that they ask."""

    def __init__(
        self,
        ray: Any,
        pending: Mapping[str, Sequence[EpisodeKey]],
        choice: PolicyChoice,
        num_envs: int | None,
        *,
        workers: int,
    ) -> None:
        gpus = 1 if choice.device == "cuda" else 0
        self._ray = ray
        self._make = ray.remote(num_cpus=1, num_gpus=gpus)(_Worker).remote
        self._arguments = choice, num_envs, installed_environment()
        plain = {task: list(keys) for task, keys in pending.items()}
        self._scheduler = ray.remote(num_cpus=0)(EpisodeScheduler).remote(plain, workers=workers)
        self._streams: dict[Any, int] = {}
        self._actors: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def start(self) -> int:
        """One more actor."""
        number = len(self._actors)
        actor = self._actors[number] = self._make(*self._arguments)
        stream = actor.play.options(num_returns="streaming").remote(number, self._scheduler)
        self._streams[stream] = number
        return number

    def messages(self) -> list[tuple[int, Any]]:
        """What an actor says next."""
        ray = self._ray
        (stream,), _ = ray.wait(list(self._streams), num_returns=1)
        number = self._streams[stream]
        try:
            return [(number, ray.get(next(stream)))]
        except StopIteration:
            self._leave(stream)
            return [(number, Ended(""))]
        except ray.exceptions.RayError as error:
            self._leave(stream)
            return [(number, Ended(str(error).strip().splitlines()[0]))]

    def lost(self, number: int) -> tuple[Sequence[EpisodeKey], int]:
        """As :class:`benchmarks.workers.common.EpisodePool` says."""
        scheduler = self._scheduler
        keys, times = self._ray.get([scheduler.lost.remote(number), scheduler.losses.remote()])
        return keys, times

    def ended(self, number: int, key: EpisodeKey) -> bool:
        """As :class:`benchmarks.workers.common.EpisodePool` says."""
        return bool(self._ray.get(self._scheduler.ended.remote(number, key)))

    def _leave(self, stream: Any) -> None:
        """Let an actor go, so that one that waits for its core can begin."""
        self._ray.kill(self._actors[self._streams.pop(stream)])

    def stop(self) -> None:
        """End all."""
        for stream in list(self._streams):
            self._leave(stream)
        self._ray.kill(self._scheduler)
