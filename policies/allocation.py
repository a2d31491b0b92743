"""How a process keeps memory.

* :func:`keep_memory` -- has the C library reuse what is freed instead of giving it back.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_memory"]

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8
"""Parameters of glibc's mallopt(3)."""


def keep_memory() -> bool:
    """Have the C library reuse what is freed instead of giving it back to the system.

    A training step allocates the same large arrays again and again. glibc maps each of them anew,
    and every page of it is a fault when it is first written: a fifth of the time of a step of
    ``gato-mini`` on a CPU. The process keeps the most that it ever needed, until it ends.

    Returns:
        Whether it does; elsewhere than in glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26, ARENA_MAX: 1}
    results = [mallopt(name, value) for name, value in wanted.items()]
    return all(result == 1 for result in results)
