"""Environments that raise, hang or return nonsense.

* :class:`UsageError` -- what was asked for cannot be done.
* :class:`EnvironmentFault` -- an environment cannot be made, raised, or gave what is no number.
* :data:`FAULTS` -- what fails an episode when an environment or a policy raises it.
* :func:`time_limit` -- ends what takes too long, by :class:`EpisodeTimeout`.
* :func:`close_env` -- closes an environment that may raise or hang.
* :func:`describe` -- an exception as a record keeps it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

import gymnasium as gym

CLOSING_SECONDS = 10.0
"""How long an environment may take to close."""

FAULTS = (Exception, SystemExit)
"""What fails an episode when an environment or a policy raises it: ``sys.exit()`` too, which would
end the run as if it were complete."""


class UsageError(ValueError):
    """What was asked for cannot be done; the message says what to write instead."""


class EnvironmentFault(RuntimeError):
    """An environment cannot be made, raised, or gave what is no number.

    The reason does not lie in what was asked for. The message names the task, and the seed and the
    step where there is one.
    """


class EpisodeTimeout(RuntimeError):
    """An environment took longer over an episode than it may."""


@contextlib.contextmanager
def time_limit(seconds: float | None, message: str) -> Iterator[None]:
    """Raise in the middle of the context when it lasts too long.

    A signal interrupts Python code, sleeping and waiting. Compiled code that never returns to
    Python is not interrupted by it. Limits nest: the outer one continues after the inner one.

    Args:
        seconds: How long it may last; None for ever.
        message: What the error says.

    Raises:
        EpisodeTimeout: It lasted longer.
        RuntimeError: Not in the main thread, where signals arrive.
    """
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a time limit was set outside the main thread, expected inside it")

    def expire(number: int, frame: FrameType | None) -> None:
        raise EpisodeTimeout(message)

    before, began = signal.signal(signal.SIGALRM, expire), time.monotonic()
    # Once more and again, in case that what hangs swallows exceptions.
    outer, _ = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            left = outer - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6), 1.0)


def can_limit() -> bool:
    """Whether a time limit can be kept: in the main thread, and not on Windows."""
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and hasattr(signal, "setitimer")


def close_env(env: gym.Env[Any, Any]) -> None:
    """Close an environment; one that raises, or hangs where :func:`can_limit`, is left as it is."""
    seconds = CLOSING_SECONDS if can_limit() else None
    with contextlib.suppress(*FAULTS), time_limit(seconds, "the environment does not close"):
        env.close()


def describe(error: BaseException) -> str:
    """The traceback, its last line the error's type and message."""
    return "".join(traceback.format_exception(error)).rstrip()
