"""Work for the coming steps, done beside that for this one.

* :class:`Prefetcher` -- values of a function of the step, in the order of the steps.
* :func:`usual_processes` -- how many processes to compute them in.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from policies.threads import available_cores

T = TypeVar("T")

AHEAD = 2
"""Steps that are computed ahead in a thread, and in each process."""

MOST_PROCESSES = 16


def usual_processes(device: torch.device, *, sharing: int = 1) -> int:
    """Processes that prepare batches for a device: a GPU is faster than a thread that does.

    Args:
        device: Where the batches go.
        sharing: Processes that train on this machine.
    """
    if device.type == "cpu" or "fork" not in multiprocessing.get_all_start_methods():
        return 0
    return min(MOST_PROCESSES, max(1, (available_cores() - 1) // sharing))


class _Steps(Dataset[T]):
    """A function of the step as a dataset."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> T:
        return self.make(step)


def _as_it_is(value: T) -> T:
    return value


def _quiet_worker(number: int) -> None:
    """The main process decides when to stop, and computes beside this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


class Prefetcher(Generic[T]):
    """Values of a function of the step, computed ahead of their use.

    As each is a function of its step alone, they are the same as without this, whatever step is
    asked for. One that is not the next costs what was computed ahead.

    Args:
        make: The function.
        last: One past the last step.
        processes: That compute it; 0 computes it in a thread. They are forked from this one, so
            the function is called as it is then.
        finish: What a thread of this process does with each value, such as moving it to a device.

    Example:
        >>> with Prefetcher(lambda step: step * step, last=4) as squares:
        ...     [squares.take(step) for step in range(4)]
        [0, 1, 4, 9]
    """

    def __init__(
        self,
        make: Callable[[int], T],
        *,
        last: int,
        processes: int = 0,
        finish: Callable[[T], T] = _as_it_is,
    ) -> None:
        self.make, self.last, self.processes, self.finish = make, last, processes, finish
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[int, Future[T]] = {}
        self._values: Iterator[T] | None = None
        self._next = -1

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, step: int) -> T:
        """The value of a step; whatever its computation raised is raised here."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        if step not in self._coming:
            self._drop()
        for number in range(step, max(step + 1, min(step + 1 + AHEAD, self.last))):
            if number not in self._coming:
                self._coming[number] = self._pool.submit(self._value, number)
        return self._coming.pop(step).result()

    def close(self) -> None:
        """Drop what was computed ahead and end the thread and the processes; :meth:`take` would
        start others.
        """
        self._drop()
        if self._pool is not None:
            self._pool.shutdown()
        self._pool, self._values = None, None

    def _drop(self) -> None:
        for future in self._coming.values():
            future.cancel()
        self._coming.clear()

    def _value(self, step: int) -> T:
        """A value, in the thread."""
        if not self.processes:
            return self.finish(self.make(step))
        if self._values is None or step != self._next:
            self._values = self._begin(step)
        self._next = step + 1
        return self.finish(next(self._values))

    def _begin(self, step: int) -> Iterator[T]:
        """The values from a step on, computed in processes."""
        return iter(
            DataLoader(
                _Steps(self.make),
                batch_size=None,
                sampler=range(step, max(self.last, step + 1)),
                num_workers=self.processes,
                prefetch_factor=AHEAD,
                collate_fn=_as_it_is,
                worker_init_fn=_quiet_worker,
                multiprocessing_context="fork",
            )
        )
