"""Processes that work for this one.

* :class:`WorkerPool` -- starts, hears, answers and ends them; :class:`Ended` -- the end of one.
* :class:`JobPool` -- gives them jobs, one after another.
* :func:`caller`, :func:`results_of` -- of a pool whose jobs are calls.
* :class:`WorkerFailure` -- what a worker says when it cannot do its work.
* :class:`WorkerError` -- work that was not done.
"""

from __future__ import annotations

import multiprocessing
import operator
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Self, TypeVar

from policies.threads import one_thread


class WorkerError(RuntimeError):
    """Work was not done, or not all of it; the message says why."""


@dataclass(frozen=True)
class WorkerFailure:
    """What a worker says when it cannot do its work.

    Attributes:
        message: For the user.
        asked_wrongly: Whether what was asked for cannot be done.
        trace: The traceback of an unexpected error.
    """

    message: str
    asked_wrongly: bool = False
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """An exception; a ValueError says that what was asked for cannot be done."""
        if isinstance(error, ValueError):
            return cls(str(error), asked_wrongly=True)
        return cls(f"{type(error).__name__}: {error}", trace=traceback.format_exc())

    def error(self) -> ValueError | WorkerError:
        """The exception to raise for it, where it ends all work."""
        if self.asked_wrongly:
            return ValueError(self.message)
        return WorkerError(f"a worker failed: {self.message}\n{self.trace}".rstrip())


@dataclass(frozen=True)
class Ended:
    """A worker has ended.

    Attributes:
        how: What is known of its end; empty where it ended as it should.
        pid: The number that the operating system knew its process by, on this machine.
    """

    how: str
    pid: int | None = None


class WorkerPool:
    """Processes by number, each with one thread of linear algebra and a connection to this one.

    Args:
        main: What each runs: called with its connection, ``arguments``, and those of
            :meth:`start`. Ctrl-C does not reach it; a closed connection asks it to end.
        arguments: Arguments of every process.
    """

    def __init__(self, main: Callable[..., None], *arguments: Any) -> None:
        self._main, self._arguments = main, arguments
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, tuple[Any, Connection]] = {}
        self._started = 0

    def __len__(self) -> int:
        return len(self._workers)

    def start(self, *arguments: Any) -> int:
        """One more process; its number."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_begin, args=(self._main, theirs, *self._arguments, *arguments), daemon=True
        )
        with one_thread():  # what a child's environment variables say, its libraries read at import
            process.start()
        theirs.close()
        number, self._started = self._started, self._started + 1
        self._workers[number] = process, ours
        return number

    @property
    def numbers(self) -> list[int]:
        """The processes there are."""
        return list(self._workers)

    def pid(self, number: int) -> int:
        """The operating system's number of a process."""
        return int(self._workers[number][0].pid)

    def send(self, number: int, message: Any) -> None:
        """Say something to a process; one that is gone is heard of by :meth:`messages`."""
        with suppress(OSError):
            self._workers[number][1].send(message)

    def messages(self, timeout: float | None = None) -> list[tuple[int, Any]]:
        """What processes say, by number, or :class:`Ended`; waits for the first, or so long."""
        numbers = {connection: number for number, (_, connection) in self._workers.items()}
        heard: list[tuple[int, Any]] = []
        for ready in wait(list(numbers), timeout):
            assert isinstance(ready, Connection)
            number = numbers[ready]
            try:
                heard.append((number, ready.recv()))
            except (EOFError, OSError):  # cut short, where it was killed while it spoke
                heard.append((number, self._ended(number)))
        return heard

    def kill(self, number: int) -> Ended:
        """End a process at once."""
        self._workers[number][0].kill()
        return self._ended(number)

    def _ended(self, number: int) -> Ended:
        process, connection = self._workers.pop(number)
        process.join()
        connection.close()
        code = process.exitcode
        return Ended(f"exit code {code}, expected 0" if code else "", process.pid)

    def stop(self, *numbers: int) -> None:
        """End all, or these, cleanly where they can."""
        leaving = [self._workers.pop(number) for number in numbers or self.numbers]
        for process, connection in leaving:
            connection.close()
            process.terminate()
        for process, _ in leaving:
            process.join(timeout=10.0)
            process.kill()
            process.join()


Job = TypeVar("Job")


class JobPool(Generic[Job]):
    """Processes that do jobs, each one at a time; one that ends is replaced.

    A context manager, which ends the processes and loses what they have in hand.

    Args:
        prepare: Called once in each process, with ``arguments`` and those of :meth:`new_process`;
            what it returns is called with each job.
        arguments: Arguments of every process.
        count: Number of processes; 0 does the jobs of :meth:`run` in this one.
        fresh: Whether each job has a process of its own, which keeps nothing of others.
    """

    def __init__(
        self,
        prepare: Callable[..., Callable[[Job], Any]],
        *arguments: Any,
        count: int,
        fresh: bool = False,
    ) -> None:
        self.pool = WorkerPool(_do_jobs, prepare, *arguments)
        self.in_hand: dict[int, Job] = {}
        self._here = None if count else prepare(*arguments)
        self._count, self._fresh = count, fresh

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.stop()

    @property
    def has_idle(self) -> bool:
        """Whether another job can be begun."""
        return len(self.in_hand) < self._count

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any]]:
        """Do jobs, each taken when it can begin; as they end, with their results.

        The result is a :class:`WorkerFailure` where a job raised, or its process was killed.
        """
        if self._here is not None:
            yield from ((job, _result(self._here, job)) for job in jobs)
            return
        waiting = iter(jobs)
        while True:
            while self.has_idle and (job := next(waiting, None)) is not None:
                self.start(job)
            if not self.in_hand:
                return
            yield from self.finished()

    def start(self, job: Job) -> None:
        """Give a job to an idle process."""
        self._give(self._idle_process(), job)

    def finished(self, timeout: float | None = None) -> list[tuple[Job, Any]]:
        """Wait until a job is done, or the timeout is over; jobs with their results."""
        done: list[tuple[Job, Any]] = []
        for number, message in self.pool.messages(timeout):
            job = self.in_hand.pop(number, None)
            if isinstance(message, Ended):
                message = self.lost(number, job, message)
            elif self._fresh:
                self.pool.stop(number)
            if job is not None:
                done.append((job, message))
        return done

    def new_process(self) -> int:
        """Start one more; its number."""
        return self.pool.start()

    def lost(self, number: int, job: Job | None, ended: Ended) -> WorkerFailure:
        """A process has ended, with a job in hand or without: what becomes of the job."""
        how = ended.how or "exit code 0"
        return WorkerFailure(f"its process ended: {how}; it may have run out of memory")

    def _idle_process(self) -> int:
        idle = next((number for number in self.pool.numbers if number not in self.in_hand), None)
        return self.new_process() if idle is None else idle

    def _give(self, number: int, job: Job) -> None:
        self.in_hand[number] = job
        self.pool.send(number, job)


def _do_jobs(
    connection: Connection, prepare: Callable[..., Callable[[Any], Any]], *arguments: Any
) -> None:
    do = prepare(*arguments)
    while True:
        connection.send(_result(do, connection.recv()))


def _result(do: Callable[[Job], Any], job: Job) -> Any:
    try:
        return do(job)
    except (Exception, SystemExit) as error:
        return WorkerFailure.of(error)


def _begin(main: Callable[..., None], connection: Connection, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    # Cleanly: no half-written files stay. Not by SystemExit, which fails an episode alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        with suppress(EOFError, ConnectionError):  # the parent is gone, or wants no more
            main(connection, *arguments)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends already, and quietly


Call = Callable[[], Any]


def caller() -> Callable[[Call], Any]:
    """What a process makes of the calls that it is given: it makes them."""
    return operator.call


def results_of(pool: JobPool[Call], calls: Sequence[Call]) -> list[Any]:
    """What each of the calls returns, in their order; the first failure is raised."""
    results: dict[Call, Any] = {}
    for call, result in pool.run(calls):
        if isinstance(result, WorkerFailure):
            raise result.error()
        results[call] = result
    return [results[call] for call in calls]
