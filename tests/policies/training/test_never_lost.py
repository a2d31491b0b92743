"""Work is never lost: a process killed at any moment of saving leaves what can be gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import config, losses, shards

from gato_gym.files.atomic_io import appearing, surviving, write_whole
from policies import GatoPolicy
from policies.gato.checkpoint import load_checkpoint
from policies.training.trainer import Trainer


def fill(folder: Path, content: str) -> None:
    with appearing(folder, own=("a", "b", "c")) as partial:
        for name in ("a", "b", "c"):
            (partial / name).write_text(content)


def read(folder: Path) -> set[str]:
    survivor = surviving(folder)
    return {(survivor / name).read_text() for name in ("a", "b", "c")}


class Killed(BaseException):
    """The process is gone: nothing after it runs, cleaning up neither."""


@pytest.mark.parametrize("calls", range(1, 40))
def test_a_process_killed_before_any_call_leaves_a_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Every call that changes the disk is, in turn, the one before which the process dies."""
    folder = tmp_path / "last"
    fill(folder, "first")
    fill(folder, "second")
    left = calls

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in ("replace", "rmdir", "unlink", "mkdir", "fsync"):
            patched.setattr(os, name, dying(getattr(os, name)))
        patched.setattr(Path, "write_text", dying(Path.write_text))
        try:
            fill(folder, "third")
        except Killed:
            assert left <= 0
    assert read(folder) in ({"second"}, {"third"})
    fill(folder, "fourth")
    assert read(folder) == {"fourth"}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


SAVING = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = sys.argv[3:]
from small import SMALL, state_plan
from policies.gato.policy import GatoPolicy
from policies.model.network import GatoNetwork
from policies.training.trainer import Trainer
from small_training import config, shards
policy = GatoPolicy(GatoNetwork(SMALL), state_plan())
trainer = Trainer(config(), shards(), Path(sys.argv[2]))
trainer.resume()
policy.save(sys.argv[1])
trainer.save()
for line in sys.stdin:
    child = os.fork()
    while not child:
        policy.save(sys.argv[1])
        trainer.save()
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_kill_minus_nine_twenty_times(tmp_path: Path) -> None:
    """Two folders are saved over and over by processes that are killed at random moments."""
    here = Path(__file__).parents[2] / "helpers"
    checkpoint, run = tmp_path / "checkpoint", tmp_path / "run"
    folders = [str(checkpoint), str(run), str(here), str(here.parents[1])]
    generator, torn = np.random.default_rng(0), 0
    with subprocess.Popen(
        [sys.executable, "-c", SAVING, *folders],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as forking:
        assert forking.stdin is not None
        assert forking.stdout is not None
        for _ in range(20):
            print(file=forking.stdin, flush=True)
            child = int(forking.stdout.readline())
            time.sleep(float(generator.uniform(0.01, 0.08)))
            os.kill(child, signal.SIGKILL)
            assert int(forking.stdout.readline()) == signal.SIGKILL
            names = {path.name for path in (*tmp_path.iterdir(), *run.iterdir())}
            torn += names != {"checkpoint", "run", "config.json", "last"}
            assert load_checkpoint(checkpoint).tasks
            Trainer(config(), shards(), run).resume()
    assert torn > 5, "many in the middle of saving"
    trainer = Trainer(config(), shards(), run)
    trainer.resume()
    assert np.isfinite(losses(trainer, 1)).all()


def test_the_next_hundred_losses_are_those_of_a_run_that_was_not_stopped(tmp_path: Path) -> None:
    settings = config(steps=110, rows=2, length=64)
    straight = Trainer(settings, shards(), tmp_path / "a")
    straight.resume()
    expected = losses(straight, 110)
    first = Trainer(settings, shards(), tmp_path / "b")
    first.resume()
    assert losses(first, 10) == expected[:10]
    first.save()
    losses(first, 3)  # lost with the process
    second = Trainer(settings, shards(), tmp_path / "b")
    second.resume()
    assert second.step == 10
    assert losses(second, 100) == expected[10:]


def test_control_c_finishes_the_step_and_saves(tmp_path: Path) -> None:
    trainer = Trainer(config(steps=20), shards(), tmp_path / "run")
    trainer.resume()
    whole = trainer.update

    def update() -> Any:
        if trainer.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return whole()

    trainer.update = update  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGINT) is before
    progress = json.loads((tmp_path / "run" / "last" / "progress.json").read_text())
    assert progress["step"] == 4
    again = Trainer(config(steps=20), shards(), tmp_path / "run")
    again.resume()
    again.run()
    straight = Trainer(config(steps=20), shards(), tmp_path / "straight")
    straight.resume()
    straight.run()
    ends = [
        (tmp_path / run / "last" / "model.safetensors").read_bytes() for run in ("run", "straight")
    ]
    assert ends[0] == ends[1]


def test_a_process_killed_while_it_writes_a_file_leaves_the_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "figures.json", Path.write_bytes

    def dying(path: Path, content: bytes) -> None:
        whole(path, content[: len(content) // 2])
        raise Killed

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    def full(*args: Any) -> None:
        raise OSError("no room")

    write_whole(path, "first")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", dying)
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            write_whole(path, "second")
    assert path.read_text() == "first"
    write_whole(path, "third")
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == [(path, "third")]
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no room"):
            write_whole(path, "fourth")
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == [(path, "third")]


def test_a_run_killed_while_it_writes_its_configuration_can_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it would be refused, and read so by a second process that starts at that moment."""

    def dying(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise Killed

    killed = Trainer(config(steps=2), shards(), tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", dying)
        with pytest.raises(Killed):
            killed.resume()
    again = Trainer(config(steps=2), shards(), tmp_path / "run")
    again.resume()
    again.run()
    assert again.step == 2


def test_a_run_that_has_written_no_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    with pytest.raises(ValueError, match="has written no checkpoint yet"):
        GatoPolicy.load(tmp_path)
