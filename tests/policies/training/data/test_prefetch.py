"""Batches computed ahead are those computed when they are used, in a thread and in processes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import config, losses, shards

from policies.training.data.prefetch import Packed, Prefetcher, usual_processes
from policies.training.trainer import Trainer


def test_work_ahead_is_done_in_order_and_fails_where_it_is_taken() -> None:
    steps = []

    def make(step: int) -> int:
        steps.append(step)
        if step == 5:
            raise ValueError("of step 5")
        return 10 * step

    with Prefetcher(make, last=7) as ahead:
        assert [ahead.take(step) for step in (0, 1, 2)] == [0, 10, 20]
        assert ahead.take(1) == 10, "a step of the past is made again"
        with pytest.raises(ValueError, match="of step 5"):
            ahead.take(5)
        assert ahead.take(6) == 60
    assert max(steps) == 6
    assert steps[:3] == [0, 1, 2]
    assert ahead.take(6) == 60, "it starts again where it was closed"
    ahead.close()


def test_values_come_from_processes_in_order() -> None:
    def make(step: int) -> tuple[int, int, torch.Tensor]:
        if step == 5:
            raise ValueError("of step 5")
        return step, os.getpid(), torch.full((3,), step)

    with Prefetcher(make, last=8, processes=2) as ahead:
        values = [ahead.take(step) for step in range(5)]
        assert [step for step, _, _ in values] == [0, 1, 2, 3, 4]
        assert os.getpid() not in {process for _, process, _ in values}
        assert [int(tensor.sum()) for _, _, tensor in values] == [0, 3, 6, 9, 12]
        with pytest.raises(ValueError, match="of step 5"):
            ahead.take(5)
        assert ahead.take(2)[0] == 2, "a step of the past is made again"


def test_a_packed_value_is_the_value() -> None:
    tensors = [
        torch.arange(6).view(2, 3).T,
        torch.tensor([True, False, True]),
        torch.tensor(2.5),
        torch.zeros(0, 4),
        torch.arange(5, dtype=torch.uint8)[1:],
        torch.rand(3, 5).bfloat16(),
    ]
    packed = Packed.of(({"a": tensors}, "b", np.arange(3)))
    assert packed.buffer.dtype == torch.uint8
    kept, name, array = packed.unpacked(torch.device("cpu"))
    assert name == "b"
    np.testing.assert_array_equal(array, np.arange(3))
    for before, after in zip(tensors, kept["a"], strict=True):
        assert before.dtype == after.dtype
        torch.testing.assert_close(before, after, rtol=0, atol=0)
        assert after.untyped_storage().data_ptr() == packed.buffer.data_ptr()


def test_processes_that_prepare_batches_change_no_loss(tmp_path: Path) -> None:
    one, two = (
        Trainer(config(), shards(), tmp_path / name, loaders=count)
        for name, count in (("thread", 0), ("processes", 2))
    )
    with one.batches, two.batches:
        assert losses(one, 4) == losses(two, 4)


def test_a_gpu_has_processes_and_a_cpu_a_thread() -> None:
    assert usual_processes(torch.device("cpu")) == 0
    assert usual_processes(torch.device("cuda")) >= 1
    assert usual_processes(torch.device("cuda"), sharing=10_000) == 1
