"""Processes that share a machine's cores, one thread each.

* :func:`one_thread` -- what is started or imported inside it computes with one thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ONE_THREAD", "one_thread"]

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Environment variables that ask numerical libraries for one thread."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Ask numerical libraries imported from now on, here or in a child, for one thread."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
