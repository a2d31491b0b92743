"""Processes are heard, answered, ended, and their ends are told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest

from policies import processes
from policies.processes import Ended, JobPool, WorkerFailure, WorkerPool


def work(connection: Connection, factor: int, offset: int) -> None:
    while True:
        number = connection.recv()
        if number < 0:
            os._exit(-number)
        connection.send((number * factor + offset, os.environ["OMP_NUM_THREADS"]))


def next_message(pool: WorkerPool) -> tuple[int, Any]:
    for _ in range(600):
        if heard := pool.messages(timeout=0.1):
            (message,) = heard
            return message
    raise AssertionError("nothing was said for a minute")


def test_processes_are_answered_by_number_and_their_ends_are_told() -> None:
    pool = WorkerPool(work, 10)
    try:
        first, second = pool.start(1), pool.start(2)
        pool.send(second, 4)
        assert next_message(pool) == (second, (42, "1"))
        pool.send(first, 5)
        assert next_message(pool) == (first, (51, "1"))
        pid = pool.pid(first)
        pool.send(first, -7)
        assert next_message(pool) == (first, Ended("exit code 7, expected 0", pid))
        assert len(pool) == 1
        assert pool.kill(second).how == "exit code -9, expected 0"
        assert len(pool) == 0
        assert pool.messages(timeout=0.0) == []
        assert pool.start(0) == 2
    finally:
        began = time.monotonic()
        pool.stop()
    assert time.monotonic() - began < 30


def divider(total: int) -> Callable[[int], tuple[int, int]]:
    """Jobs are numbers: one is too large, one is no divisor, and one ends its process."""
    jobs_done = 0

    def divide(number: int) -> tuple[int, int]:
        nonlocal jobs_done
        jobs_done += 1
        if number > total:
            raise ValueError(f"{number} is over {total}")
        if number < 0:
            os._exit(-number)
        return total // number, jobs_done

    return divide


def test_jobs_are_done_here_and_in_processes_and_failures_are_results() -> None:
    jobs = [4, 0, 30, 5]
    too_large = WorkerFailure("30 is over 20", asked_wrongly=True)
    for count in (0, 2):
        with JobPool(divider, 20, count=count) as pool:
            results = dict(pool.run(jobs))
        assert results.keys() == set(jobs)
        assert (results[4][0], results[5][0]) == (5, 4)
        assert results[30] == too_large
        assert results[0].message.startswith("ZeroDivisionError: ")
        assert "in divide" in results[0].trace
        assert not results[0].asked_wrongly


def test_a_process_that_ends_costs_the_job_in_hand_alone() -> None:
    with JobPool(divider, 20, count=1) as pool:
        results = dict(pool.run([2, -7, 5]))
    assert results[2] == (10, 1)
    assert "its process ended: exit code 7" in results[-7].message
    assert results[5] == (4, 1), "the first job of another process"


def test_fresh_processes_keep_nothing_of_other_jobs() -> None:
    with JobPool(divider, 20, count=1) as pool:
        assert [result for _, result in pool.run([2, 4])] == [(10, 1), (5, 2)]
    with JobPool(divider, 20, count=1, fresh=True) as pool:
        assert [result for _, result in pool.run([2, 4])] == [(10, 1), (5, 1)]


def test_jobs_are_taken_when_they_can_begin() -> None:
    taken: list[int] = []

    def jobs() -> Any:
        for number in (1, 2, 4):
            taken.append(number)
            yield number

    with JobPool(divider, 20, count=1) as pool:
        for number, _ in pool.run(jobs()):
            assert taken[-1] == number


def test_the_error_of_a_failure_says_whether_what_was_asked_for_is_wrong() -> None:
    assert isinstance(WorkerFailure("too large", asked_wrongly=True).error(), ValueError)
    error = WorkerFailure("OSError: broken", trace="Traceback").error()
    assert str(error) == "a worker failed: OSError: broken\nTraceback"
    assert not isinstance(error, ValueError)


def test_a_signal_to_end_may_come_as_a_worker_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not a traceback, then, although the worker is about to ignore the signal."""
    done: list[object] = []

    def interrupted(number: int, handler: object) -> None:
        if (number, handler) == (signal.SIGTERM, signal.SIG_IGN):
            done.append("ending")
            raise KeyboardInterrupt

    monkeypatch.setattr(processes.signal, "signal", interrupted)
    processes._begin(done.append, "connection")  # type: ignore[arg-type]
    assert done == ["connection", "ending"]
