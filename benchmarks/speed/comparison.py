"""Two ways to do the same work, timed side by side.

* :class:`Comparison` -- two ways, and how much faster the second is.
* :func:`compare` -- times them in turn.
* :func:`table` -- comparisons for people.

Absolute rates depend on the machine; ratios of alternating runs hardly do.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

SHORTEST_TURN = 0.02
"""Seconds that the faster way is repeated for before it is the other's turn."""

Way = tuple[str, Callable[[], object]]
"""Words for a way to do some work, and a call that does it."""


@dataclass(frozen=True)
class Comparison:
    """Two ways to do the same work.

    Attributes:
        name: What is done.
        slow: The way compared with, in words.
        fast: The way whose speed is in question, in words.
        slow_rate: Items a second of the first way, median over rounds.
        fast_rate: Items a second of the second way, median over rounds.
        ratio: Median over rounds of ``fast / slow`` within a round.
        low: Lowest ratio of a round.
        high: Highest ratio of a round.
        limit: What the ratio should be, in words; empty where nothing is asked.
    """

    name: str
    slow: str
    fast: str
    slow_rate: float
    fast_rate: float
    ratio: float
    low: float
    high: float
    limit: str = ""

    @classmethod
    def of(
        cls, name: str, slow: str, fast: str, rates: Sequence[tuple[float, float]], limit: str
    ) -> Comparison:
        """From both rates of each round."""
        ratios = [quick / tardy for tardy, quick in rates]
        return cls(
            name,
            slow=slow,
            fast=fast,
            slow_rate=statistics.median(tardy for tardy, _ in rates),
            fast_rate=statistics.median(quick for _, quick in rates),
            ratio=statistics.median(ratios),
            low=min(ratios),
            high=max(ratios),
            limit=limit,
        )


def compare(
    name: str,
    slow: Way,
    fast: Way,
    *,
    items: int,
    slow_items: int | None = None,
    seconds: float = 0.5,
    rounds: int = 5,
    limit: str = "",
) -> Comparison:
    """Time two ways to do the same work, in short turns, so that a busy machine slows both.

    In each turn both make the same number of calls, and they take turns at being first: two
    environments of one seed then step through the same states, whose cost differs.

    Args:
        name: What is done.
        slow: The way compared with.
        fast: The way in question.
        items: What one call gets through; rates are items a second.
        slow_items: The same for the first way, where it is another number.
        seconds: How long a round lasts for each way, on average of the two.
        rounds: How many ratios the median is of.
        limit: As in :class:`Comparison`.
    """
    ways = (slow[1], fast[1])
    for call in ways:  # what is only done once is not timed
        call()
    calls = math.ceil(SHORTEST_TURN / max(min(_seconds(call, 1) for call in ways), 1e-9))
    times = [_round(ways, calls=calls, seconds=seconds) for _ in range(rounds)]
    rates = [
        (turns * calls * (slow_items or items) / tardy, turns * calls * items / quick)
        for turns, tardy, quick in times
    ]
    return Comparison.of(name, slow[0], fast[0], rates, limit)


def compare_percentile(
    name: str,
    slow: Way,
    fast: Way,
    *,
    percentile: float,
    before: Callable[[], object],
    calls: int = 40,
    turns: int = 10,
    rounds: int = 5,
    limit: str = "",
) -> Comparison:
    """As :func:`compare`, but of a percentile of single calls; rates are calls a second.

    Args:
        name: What is done.
        slow: The way compared with.
        fast: The way in question.
        percentile: Percentile of the calls' times, 0 to 100.
        before: Called before each turn, untimed.
        calls: Calls of each way in a turn.
        turns: Turns of a round.
        rounds: How many ratios the median is of.
        limit: As in :class:`Comparison`.
    """
    rates = []
    for _ in range(rounds):
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(turns):
            before()
            for _, way in itertools.product(range(calls), (0, 1) if turn % 2 == 0 else (1, 0)):
                times[way].append(_seconds((slow[1], fast[1])[way], 1))
        tardy, quick = (1 / float(np.percentile(each, percentile)) for each in times)
        rates.append((tardy, quick))
    return Comparison.of(name, slow[0], fast[0], rates, limit)


def _round(
    ways: tuple[Callable[[], object], Callable[[], object]], *, calls: int, seconds: float
) -> tuple[int, float, float]:
    """How many turns each way had, and the seconds each took for them all."""
    spent, turns = [0.0, 0.0], 0
    while not turns or sum(spent) < 2 * seconds:
        for way in (0, 1) if turns % 2 == 0 else (1, 0):
            spent[way] += _seconds(ways[way], calls)
        turns += 1
    return turns, spent[0], spent[1]


def _seconds(call: Callable[[], object], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - started


def table(comparisons: Sequence[Comparison]) -> Table:
    """A table of them: both rates, the ratio and its spread over rounds, and what is asked."""
    rows = Table()
    rows.add_column("work")
    for column in ("a second", "ratio", "rounds", "asked"):
        rows.add_column(column, justify="right", no_wrap=True)
    for each in comparisons:
        rows.add_row(each.name, style="bold")
        rows.add_row(f"  {each.slow}", _in_words(each.slow_rate))
        digits = 1 if each.ratio > 4 else 3
        rounds = f"{each.low:.{digits}f} to {each.high:.{digits}f}"
        ratio = f"{each.ratio:.{digits}f}"
        rows.add_row(f"  {each.fast}", _in_words(each.fast_rate), ratio, rounds, each.limit)
    return rows


def _in_words(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2f}"
