"""Two writers to one place: one waits or is refused, and nothing is mixed, lost or half there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
from environments import Balance
from hostile import DATASET, contents, write_dataset
from rich.console import Console

from benchmarks.protocol import BenchmarkError, Protocol, TaskRules
from benchmarks.store.run_store import Record, RunHeader
from benchmarks.studies.finetune import FinetuneRun
from benchmarks.studies.scaling import ScalingRun
from gato_gym import get_task, read_minari
from gato_gym.__main__ import main
from gato_gym.files.atomic_io import appearing, surviving, write_whole
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderInUseError, FolderLock
from policies.collection.collect import collect
from policies.collection.jobs import CollectSettings
from policies.collection.record import record_episodes
from policies.expert_training.trainer import TrainSettings, train
from policies.gato.checkpoint import load_checkpoint
from policies.training.run import TrainRun

HELPERS = str(Path(__file__).parents[1] / "helpers")
BUSY = f"is being written to by process {os.getpid()} on "

WRITING = """
import sys
from pathlib import Path
from gato_gym.files.atomic_io import appearing, write_json
place, number = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(25):
    with appearing(place / "folder", own=("a", "b")) as partial:
        for name in ("a", "b"):
            (partial / name).write_text(f"{number}-{turn}")
    write_json(place / "file.json", [f"{number}-{turn}"] * 2000)
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_replace_the_same_place(tmp_path: Path) -> None:
    """At every moment there is a whole folder and a whole file, of one writer each."""
    place = tmp_path / "place"
    with appearing(place / "folder", own=("a", "b")) as partial:
        (partial / "a").write_text("first")
    write_whole(place / "file.json", "[]")
    writers = [started(WRITING, str(place), str(number)) for number in range(4)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    looks = 0
    while any(writer.poll() is None for writer in writers):
        assert surviving(place / "folder").is_dir()
        assert len(set(read_json(place / "file.json"))) <= 1
        looks += 1
    for writer in writers:
        _, said = writer.communicate()
        assert (writer.returncode, said) == (0, "")
    assert looks > 10
    assert len({(place / "folder" / name).read_text() for name in ("a", "b")}) == 1
    assert sorted(path.name for path in place.iterdir()) == ["file.json", "folder"]


SAVING = """
import os, sys
import torch
torch.set_num_threads(1)
sys.path[:0] = sys.argv[2:]
from small import SMALL, state_plan
from policies.gato.policy import GatoPolicy
from policies.model.network import GatoNetwork
policies = []
for seed in range(6):
    torch.manual_seed(seed)
    policies.append(GatoPolicy(GatoNetwork(SMALL), state_plan()))
children = []
for policy in policies:
    if not (child := os.fork()):
        for _ in range(5):
            policy.save(sys.argv[1])
        os._exit(0)
    children.append(child)
print(*(os.waitpid(child, 0)[1] for child in children))
"""


def test_thirty_saves_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    saving = started(SAVING, str(folder), HELPERS, str(Path(HELPERS).parents[1]))
    said, errors = saving.communicate()
    assert said.split() == ["0"] * 6, errors
    assert load_checkpoint(folder).tasks
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_second_recording_is_refused_before_it_plays(tmp_path: Path) -> None:
    refused = []

    def again(_: Any) -> None:
        class Unplayed(gym.Wrapper[Any, Any, Any, Any]):
            def reset(self, **_: Any) -> Any:
                pytest.fail("it plays")

        with gym.make("CartPole-v1") as other, pytest.raises(FolderInUseError, match=BUSY):
            record_episodes(Unplayed(other), Balance(), 1, DATASET, root=tmp_path, replace=True)
        refused.append(1)

    with gym.make("CartPole-v1", max_episode_steps=5) as env:
        record_episodes(env, Balance(), 2, DATASET, root=tmp_path, on_episode=again)
    assert len(refused) == 2
    assert [episode.length for episode in read_minari(DATASET, root=tmp_path)] == [5, 5]
    assert [path.name for path in (tmp_path / "my").iterdir()] == ["cart-v0"]


def test_a_dataset_that_another_process_has_completed_since_is_kept(tmp_path: Path) -> None:
    def meanwhile(_: Any) -> None:
        assert not (tmp_path / DATASET).exists()

    with gym.make("CartPole-v1", max_episode_steps=5) as env:
        record_episodes(env, Balance(), 1, DATASET, root=tmp_path, on_episode=meanwhile)
        before = contents(tmp_path)
        with pytest.raises(ValueError, match="exists in"):
            record_episodes(env, Balance(), 1, DATASET, root=tmp_path)
    assert contents(tmp_path) == before


def test_a_second_training_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_dataset(tmp_path)
    output = tmp_path / "run"
    command = ["train", "--dataset", DATASET, "--output", str(output), "--preset", "0.4m"]
    command += ["--steps", "2", "--rows", "2", "--length", "64"]
    with FolderLock(output / "training"):
        before = contents(output / "training")
        assert main(command) == 2
        assert contents(output / "training") == before
    assert BUSY in capsys.readouterr().err
    assert main(command) == 0
    assert not (output / "training" / "lock").exists()


def test_a_run_that_began_meanwhile_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the folder and the lock, another training began with other data."""
    run = object.__new__(TrainRun)
    run.state, run.identity = tmp_path / "training", {"a": 1}
    run.settings = SimpleNamespace(output=tmp_path)  # type: ignore[assignment]
    run.ranks = SimpleNamespace(rank=0)  # type: ignore[assignment]
    run.state.mkdir()
    write_whole(run.state / "data.json", json.dumps({"a": 2}))
    with pytest.raises(ValueError, match="a: 2 there, 1 now"):
        run.train()


def study(kind: type[Any], output: Path) -> Any:
    run = object.__new__(kind)
    run.settings = SimpleNamespace(output=output)
    return run


QUIET = Console(file=io.StringIO())
PROTOCOL = Protocol("babyai", {"babyai-open": TaskRules("babyai-open", 64)}, 2, 0, {})
HEADER = RunHeader(PROTOCOL, {"name": "random", "weights": None, "seed": 0})
WRITERS: dict[str, Callable[[Path], object]] = {
    "bench": lambda place: Record(place, HEADER, resume=True),
    "finetune": lambda place: study(FinetuneRun, place).run(),
    "scaling": lambda place: study(ScalingRun, place).run(),
    "expert": lambda place: train(TrainSettings("mujoco-reacher", place), console=QUIET),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_second_run_is_refused(tmp_path: Path, name: str) -> None:
    with FolderLock(tmp_path / "run"):
        before = contents(tmp_path)
        with pytest.raises((FolderInUseError, BenchmarkError), match=BUSY):
            WRITERS[name](tmp_path / "run")
        assert contents(tmp_path) == before


def test_a_second_collection_of_a_task_is_refused(tmp_path: Path) -> None:
    settings = CollectSettings(root=tmp_path, episodes=1)
    task = get_task("babyai-open")
    with FolderLock(settings.folder(task)):
        before = contents(tmp_path)
        with pytest.raises(FolderInUseError, match=BUSY):
            collect([task], settings, workers=1, console=QUIET)
        assert contents(tmp_path) == before


def test_who_waits_in_vain_is_told_by_whom(tmp_path: Path) -> None:
    with (
        FolderLock(tmp_path / "a", beside=True),
        pytest.raises(FolderInUseError, match=BUSY + r".*delete .*\.a\.lock"),
        appearing(tmp_path / "a", own=("b",), wait=0.2),
    ):
        pytest.fail("nothing may be written")
    assert list(tmp_path.iterdir()) == []
