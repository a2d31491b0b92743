"""Work for the coming steps, done in a thread while this step's is computed.

* :class:`Prefetcher` -- values of a function of the step, in the order of the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

AHEAD = 2


class Prefetcher(Generic[T]):
    """Values of a function of the step, computed ahead of their use.

    As each is a function of its step alone, they are the same as without this, whatever step is
    asked for. One that is not the next costs what was computed ahead.

    Args:
        make: The function.
        last: One past the last step.

    Example:
        >>> with Prefetcher(lambda step: step * step, last=4) as squares:
        ...     [squares.take(step) for step in range(4)]
        [0, 1, 4, 9]
    """

    def __init__(self, make: Callable[[int], T], *, last: int) -> None:
        self.make, self.last = make, last
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[int, Future[T]] = {}

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
                self._coming[number] = self._pool.submit(self.make, number)
        return self._coming.pop(step).result()

    def close(self) -> None:
        """Drop what was computed ahead and end the thread; :meth:`take` would start another."""
        self._drop()
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None

    def _drop(self) -> None:
        for future in self._coming.values():
            future.cancel()
        self._coming.clear()
