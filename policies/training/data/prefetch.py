"""Work for the coming steps, done beside that for this one.

* :class:`Prefetcher` -- values of a function of the step, in the order of the steps.
* :class:`Packed` -- a value as one buffer, which crosses processes and reaches a GPU at once.
* :func:`usual_processes` -- how many processes to compute them in.
"""

from __future__ import annotations

import io
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from policies.threads import available_cores

T = TypeVar("T")

AHEAD = 2
"""Steps that are computed ahead in a thread, and in each process."""

MOST_PROCESSES = 16

CPU = torch.device("cpu")


def usual_processes(device: torch.device, *, sharing: int = 1) -> int:
    """Processes that prepare batches for a device: a GPU is faster than a thread that does.

    Args:
        device: Where the batches go.
        sharing: Processes that train on this machine.
    """
    if device.type == "cpu" or "fork" not in multiprocessing.get_all_start_methods():
        return 0
    return min(MOST_PROCESSES, max(1, (available_cores() - 1) // sharing))


ALIGNMENT = 64
"""Bytes at a multiple of which a tensor begins in a buffer."""


@dataclass(frozen=True)
class Packed:
    """A value whose tensors are in one buffer, which moves as one.

    Attributes:
        structure: The value, pickled, with places in the buffer for tensors. It goes from one of
            this program's processes to another and into no file.
        buffer: uint8 ``[bytes]``.
    """

    structure: bytes
    buffer: Tensor

    @classmethod
    def of(cls, value: Any) -> Packed:
        """Pack a value, of whatever kind that can be pickled."""
        file = io.BytesIO()
        pickler = _Packer(file)
        pickler.dump(value)
        buffer = torch.empty(pickler.size, dtype=torch.uint8)
        for tensor, (begin, end) in pickler.tensors:
            buffer[begin:end] = tensor.contiguous().view(-1).view(torch.uint8)
        return cls(file.getvalue(), buffer)

    def unpacked(self, device: torch.device) -> Any:
        """The value, with all its tensors on a device."""
        return _Unpacker(io.BytesIO(self.structure), self.buffer.to(device)).load()


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.size = 0
        self.tensors: list[tuple[Tensor, tuple[int, int]]] = []

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        begin, end = self.size, self.size + value.numel() * value.element_size()
        self.size = -(-end // ALIGNMENT) * ALIGNMENT
        self.tensors.append((value, (begin, end)))
        return begin, end, value.dtype, tuple(value.shape)


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, buffer: Tensor) -> None:
        super().__init__(file)
        self.buffer = buffer

    def persistent_load(self, place: Any) -> Tensor:
        begin, end, dtype, shape = place
        return self.buffer[begin:end].view(dtype).view(shape)


class _Steps(Dataset[Packed]):
    """A function of the step as a dataset."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> Packed:
        return Packed.of(self.make(step))


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
        device: Where the tensors of each value shall be, to which a thread moves them.

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
        device: torch.device = CPU,
    ) -> None:
        self.make, self.last, self.processes, self.device = make, last, processes, device
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[int, Future[T]] = {}
        self._values: Iterator[Packed] | None = None
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
            made = self.make(step)
            return made if self.device.type == "cpu" else self._moved(Packed.of(made))
        if self._values is None or step != self._next:
            self._values = self._begin(step)
        self._next = step + 1
        return self._moved(next(self._values))

    def _moved(self, packed: Packed) -> T:
        value: T = packed.unpacked(self.device)
        return value

    def _begin(self, step: int) -> Iterator[Packed]:
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
