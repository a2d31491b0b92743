"""Processes that work for this one.

* :class:`WorkerPool` -- starts, hears, answers and ends them; :class:`Ended` -- the end of one.
* :class:`WorkerFailure` -- what a worker says when it cannot do its work.
* :class:`WorkerError` -- work that was not done.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from policies.threads import one_thread


class WorkerError(RuntimeError):
    """Work was not done, or not all of it; the message says why."""


@dataclass(frozen=True)
class WorkerFailure:
    """What a worker says when it cannot do its work.

    Attributes:
        message: For the user.
        asked_wrongly: Whether what was asked for cannot be done.
    """

    message: str
    asked_wrongly: bool = False


@dataclass(frozen=True)
class Ended:
    """A process has ended.

    Attributes:
        pid: The number that the operating system knew it by.
        code: Its exit code.
    """

    pid: int
    code: int


class WorkerPool:
    """Processes by number, each with one thread of linear algebra and a connection to this one.

    Args:
        main: What each runs: called with its connection, ``arguments``, and those of
            :meth:`start`. Ctrl-C does not reach it; a closed connection asks it to end.
        arguments: Of every process.
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
                process, _ = self._workers.pop(number)
                ready.close()
                process.join()
                heard.append((number, Ended(process.pid, process.exitcode)))
        return heard

    def kill(self, number: int) -> Ended:
        """End a process at once."""
        process, connection = self._workers.pop(number)
        process.kill()
        process.join()
        connection.close()
        return Ended(process.pid, process.exitcode)

    def stop(self) -> None:
        """End all, cleanly where they can."""
        for process, connection in self._workers.values():
            connection.close()
            process.terminate()
        for process, _ in self._workers.values():
            process.join(timeout=10.0)
            process.kill()
            process.join()
        self._workers.clear()


def _begin(main: Callable[..., None], connection: Connection, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    # Cleanly: no half-written files stay. Not by SystemExit, which fails an episode alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # the parent is gone, or wants no more
    with suppress(EOFError, ConnectionError, KeyboardInterrupt):
        main(connection, *arguments)
