"""Processes are heard, answered, ended, and their ends are told."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from typing import Any

from policies.processes import Ended, WorkerPool


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
        assert next_message(pool) == (first, Ended(pid, 7))
        assert len(pool) == 1
        assert pool.kill(second).code == -9
        assert len(pool) == 0
        assert pool.messages(timeout=0.0) == []
        assert pool.start(0) == 2
    finally:
        began = time.monotonic()
        pool.stop()
    assert time.monotonic() - began < 30
