"""Two processes are one: the same losses, checkpoints for any number of processes, one save."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import rank
import torch
from rank import MODES, settings, trainer
from safetensors.torch import load_file
from small_training import config, losses, shards

from policies.training.distributed import ProcessGroup
from policies.training.trainer import Trainer

RANK = Path(rank.__file__)


@contextmanager
def started(mode: str, folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes, as torchrun would start them; none outlives the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    with ExitStack() as processes:
        pair = [
            processes.enter_context(
                subprocess.Popen(
                    [sys.executable, str(RANK), "compute", mode, str(folder)],
                    env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for rank in range(2)
        ]
        for process in pair:
            processes.callback(process.kill)
        yield pair


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_learn_what_one_does_and_hand_over_to_one_and_back(
    tmp_path: Path, mode: str
) -> None:
    with started(mode, tmp_path) as pair:
        alone = trainer(mode, tmp_path / "alone")
        expected = losses(alone, 50)
        assert pair[0].stdout is not None
        assert pair[0].stdout.readline() == "saved\n"
        middle = trainer(mode, tmp_path / "moved")
        assert middle.step == 6
        second = losses(middle, 6)
        middle.save()
        for process in pair:
            assert process.stdin is not None
            print("go on", file=process.stdin, flush=True)
        for process in pair:
            process.communicate(timeout=120)
            assert process.returncode == 0
    reports = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert reports[0] == reports[1], "every process knows the whole batch's loss"
    assert reports[0]["divided"] == (mode == "fsdp")
    assert reports[0]["straight"] == pytest.approx(expected, abs=1e-4)
    moved = [*reports[0]["first"], *second, *reports[0]["third"]]
    assert moved == pytest.approx(expected[:18], abs=1e-4)
    assert_same_state(alone, tmp_path)


def assert_same_state(alone: Trainer, folder: Path) -> None:
    """Two processes saved what one does: names, shapes, and numbers but for rounding."""
    alone.save()
    for name in ("model", "optimiser"):
        one, two = (
            load_file(folder / run / "last" / f"{name}.safetensors")
            for run in ("alone", "straight")
        )
        assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in two.items()}
        for key in one:
            if key.startswith(("average.", "backbone.")):
                assert torch.allclose(one[key], two[key], atol=2e-3), key


def test_how_many_processes_is_no_part_of_what_is_trained() -> None:
    assert not {"fsdp", "world", "ranks"} & set(settings("fsdp").to_json())


def test_more_processes_than_rows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessGroup, "join", classmethod(lambda cls: cls(0, 3)))
    with pytest.raises(ValueError, match="rows is 4 for 3 processes of 2 parts"):
        Trainer(config(accumulate=2), shards(), tmp_path)


def test_control_c_saves_once_under_torchrun(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(RANK), "endless", "fsdp", str(tmp_path)]
    metrics = tmp_path / "run" / "metrics.csv"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as started:
        until = time.monotonic() + 120
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 4:
            assert started.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        said = (started.communicate(timeout=120)[0] or b"").decode()
    (step,) = (tmp_path / "saves").read_text().split()
    assert f"stopped at step {step}: run again to resume" in said
    again = Trainer(config(steps=100_000), shards(), tmp_path / "run")
    again.resume()
    assert again.step == int(step)
    assert all(loss < 100 for loss in losses(again, 1))
