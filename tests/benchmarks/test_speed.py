"""Ratios are of what was timed, and the batched ways do what the single ways do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.speed.comparison import compare
from benchmarks.speed.tokenising import copying, stepping, tokenising


class Clock:
    """Time that passes only in the calls of `lasting`, which it remembers the names of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls = 0.0, ""
        monkeypatch.setattr("benchmarks.speed.comparison.time.perf_counter", lambda: self.now)

    def lasting(self, duration: float, name: str = "") -> Callable[[], None]:
        def call() -> None:
            self.now += duration
            self.calls += name

        return call


def test_ratio_is_of_work_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    lasting = Clock(monkeypatch).lasting
    comparison = compare(
        "work", ("long", lasting(0.5)), ("short", lasting(0.125)), items=3, seconds=1.0, rounds=3
    )
    assert (comparison.slow_rate, comparison.fast_rate) == (6.0, 24.0)
    assert comparison.low == comparison.ratio == comparison.high == 4.0


def test_both_ways_make_as_many_calls_and_take_turns_at_being_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    ways = ("long", clock.lasting(0.5, "l")), ("short", clock.lasting(0.125, "s"))
    compare("work", *ways, items=1, seconds=0.6, rounds=2)
    warming, a_round = "lsls", "lssl"
    assert clock.calls == warming + 2 * a_round


def test_tokenising_a_batch_of_vectors_is_faster_than_its_rows() -> None:
    ratios = {each.name: each.ratio for each in tokenising(seconds=0.01, rows=16)}
    assert len(ratios) == 4
    assert ratios["tokenise 39 numbers, lean"] > 2.0


def test_wrapped_and_bare_environments_step_side_by_side() -> None:
    found = {each.name: each for each in stepping(seconds=0.01, num_envs=2)}
    assert "step 2 of CartPole-v1" in found
    assert all(each.slow_rate > 0 and each.fast_rate > 0 for each in found.values())


def test_encoding_is_compared_with_a_copy_of_the_same_numbers() -> None:
    assert [each.slow for each in copying(seconds=0.01, rows=4, numbers=8)] == ["numpy.copyto"] * 2
