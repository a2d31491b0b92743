"""Progress of a run: a bar on a terminal, plain lines in a log.

* :func:`progress` -- a context that gives a :class:`Reporter` to call for each episode.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from policies.rollout.outcomes import EpisodeFailure, EpisodeResult, Outcome

Reporter = Callable[[Outcome], None]

_QUIET_SECONDS = 30.0
"""Longest silence in a log while episodes end but no task does."""


@contextlib.contextmanager
def progress(
    console: Console, *, total: int, done: int, pending: Mapping[str, int]
) -> Iterator[Reporter]:
    """Show progress while the context lasts.

    Args:
        console: Where to.
        total: Episodes of the run.
        done: Those recorded already.
        pending: Episodes still to play, by task id.
    """
    if not console.is_terminal:
        yield _log_lines(console, total=total, done=done, pending=pending)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("episodes", total=total, completed=done)

        def advance(result: Outcome) -> None:
            how = f"{result.total_return:.2f}" if isinstance(result, EpisodeResult) else "failed"
            description = f"{result.key.task} {how}"
            bar.update(task, advance=1, description=description)

        yield advance


def _log_lines(console: Console, *, total: int, done: int, pending: Mapping[str, int]) -> Reporter:
    """A line for each task that is done, and one now and then in between."""
    started = last = time.monotonic()
    left = dict(pending)
    returns: dict[str, list[float]] = {}
    console.print(f"{done} of {total} episodes recorded, {total - done} to play")

    def line(result: Outcome) -> None:
        nonlocal done, last
        done += 1
        name = result.key.task
        left[name] -= 1
        played = returns.setdefault(name, [])
        if isinstance(result, EpisodeFailure):
            console.print(
                f"{name}, seed {result.key.seed} failed: {result.reason}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
        else:
            played.append(result.total_return)
        now = time.monotonic()
        if left[name] and now - last < _QUIET_SECONDS:
            return
        last = now
        state = f"{left[name]} left" if left[name] else "done"
        console.print(
            f"{done}/{total} episodes, {now - started:.0f} s: {name} {state}, "
            + (f"mean return {np.mean(played):.2f}" if played else "none played to its end"),
            soft_wrap=True,
            highlight=False,
        )

    return line
