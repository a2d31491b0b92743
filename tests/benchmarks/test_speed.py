"""Ratios are of what was timed, and the batched ways do what the single ways do."""

from __future__ import annotations

import time

import pytest

from benchmarks.speed import compare, predicting, tokenising


def test_ratio_is_of_work_a_second() -> None:
    comparison = compare(
        "sleep",
        ("long", lambda: time.sleep(0.008)),
        ("short", lambda: time.sleep(0.002)),
        items=3,
        seconds=0.02,
        rounds=3,
    )
    assert comparison.low <= comparison.ratio <= comparison.high
    assert comparison.ratio == pytest.approx(4.0, rel=0.5)
    assert comparison.slow_rate == pytest.approx(3 / 0.008, rel=0.5)


def test_tokenising_a_batch_of_vectors_is_faster_than_its_rows() -> None:
    ratios = {each.name: each.ratio for each in tokenising(seconds=0.01, rows=16)}
    assert len(ratios) == 4
    assert ratios["tokenise 39 numbers, lean"] > 2.0


def test_the_cache_is_faster_than_recomputing_a_batch() -> None:
    (comparison,) = predicting(seconds=0.01, batches=(4,))
    assert comparison.ratio > 1.0
