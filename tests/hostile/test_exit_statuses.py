"""What cannot be done ends with 2, what fails on the way with 1, Ctrl-C with 130, in one line."""

from __future__ import annotations

import errno
import importlib
import json
import os
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from hostile_files import KINDS, limits
from rich.console import Console

from gato_gym.commands.common import exit_status
from gato_gym.commands.main import main
from policies.training.run import TrainRun

LONG = "x" * 5000
TRAIN = "train --dataset it --output run --preset tiny --steps 2"
MISTAKES = [
    "inspect",
    "inspect nothing-v0",
    "inspect a:b:c",
    "inspect CartPole-v1 --layout thick",
    "inspect CartPole-v1 --seed -1",
    "inspect CartPole-v1 --window 0",
    "inspect CartPole-v1 --image nowhere/a.png",
    "inspect CartPole-v1 --image a.xyz",
    f"inspect {LONG}",
    "tasks --suite chess",
    "tasks zebra-*",
    "record CartPole-v1 --policy random --dataset a/b-v0 --episodes 0",
    "record CartPole-v1 --policy random --dataset a/b-v0 --noise nan",
    "record CartPole-v1 --policy random --dataset a/b-v0 --seed -2000000",
    "record CartPole-v1 --policy nobody --dataset a/b-v0",
    f"record CartPole-v1 --policy {LONG} --dataset a/b-v0",
    "record CartPole-v1 --policy os:nothing --dataset a/b-v0",
    "record CartPole-v1 --policy archive.zip --dataset a/b-v0",
    "score CartPole-v1 --policy random --episodes 0",
    "score CartPole-v1 --policy random --dataset none/none-v0",
    "score CartPole-v1 --policy it",
    f"import nowhere.jsonl --dataset {LONG}",
    "import it --dataset a/b-v0",
    "collect --suite babyai --episodes 0",
    "collect --suite babyai --steps -1",
    "collect --suite babyai --workers 0",
    "collect --suite babyai --noise nan",
    "collect --suite babyai --episodes 1 --time-limit nan",
    "expert train mujoco-hopper --steps 0",
    "expert train mujoco-hopper --steps nan",
    "expert train mujoco-hopper --threads -1",
    "expert train mujoco-hopper --threads 10000000",
    "expert train mujoco-hopper --jobs 0",
    "expert train mujoco-hopper --minutes nan",
    "expert score mujoco-hopper --episodes 0",
    "expert score mujoco-hopper --expert it",
    "expert convert nowhere.zip --task mujoco-hopper --algorithm sac --output o --trust-zip",
    "bench --suite babyai --tasks open --policy random --episodes 0",
    "bench --suite babyai --tasks open --policy random --workers -1",
    "bench --suite babyai --tasks open --policy random --num-envs 0",
    "bench --suite babyai --tasks open --policy random --seed -1",
    "bench --suite babyai --tasks open --policy random --episode-timeout nan",
    "bench --suite babyai --tasks open --policy random --record -1",
    f"bench --suite babyai --tasks open --policy random --output {LONG}",
    f"bench --suite babyai --tasks open --policy {LONG}",
    "bench --suite babyai --tasks open --policy gato-mini --prompt it",
    "bench --suite babyai --tasks open --policy gato-mini --device cuda:99",
    "compare it it",
    f"compare {LONG} it",
    "compare it",
    "watch zebra",
    "speed --threads 0",
    "speed --threads 10000000",
    "speed --seconds nan",
    f"{TRAIN} --threads -1",
    f"{TRAIN} --threads 10000000",
    f"{TRAIN} --length 2",
    f"{TRAIN} --rows -1",
    f"{TRAIN} --device cuda",
    f"{TRAIN} --device moon",
    f"{TRAIN} --attention blind",
    f"{TRAIN} --precision int3",
    f"{TRAIN} --options 5",
    f"{TRAIN} --options {shlex.quote(json.dumps({'layout': 5}))}",
    f"{TRAIN} --options {shlex.quote(json.dumps({'grids': 5}))}",
    f"{TRAIN} --options {shlex.quote(json.dumps({'zebra': 5}))}",
    f"{TRAIN} --weights []",
    f"{TRAIN} --weights {shlex.quote(json.dumps({'made': []}))}",
    f"{TRAIN} --network {shlex.quote(json.dumps({'width': 'wide'}))}",
    f"{TRAIN} --network {shlex.quote(json.dumps({'width': -1}))}",
    f"{TRAIN} --network {shlex.quote(json.dumps({'grid_groups': 5}))}",
    f"{TRAIN} --network {shlex.quote(json.dumps({'vocabulary': 5}))}",
    f"{TRAIN} --optimiser-options {shlex.quote(json.dumps({'rate': 'fast'}))}",
    f"{TRAIN} --optimiser-options {shlex.quote(json.dumps({'zebra': 1}))}",
    f"{TRAIN} --text nowhere.txt",
    f"{TRAIN} --pairs it",
    f"{TRAIN} --seed -1",
    "train --dataset it --output it/data/metadata.json --steps 2",
    f"train --dataset it --output {LONG} --steps 2",
    "train --dataset nowhere --output run",
    f"train --dataset {LONG} --output run",
    "finetune --from gato-mini --dataset it --output f --episodes 0",
    "finetune --from gato-mini --dataset it --output f --threads 0",
    "finetune --from it --dataset it --output f",
    "scaling --dataset it --output s --tokens nan",
    "scaling --dataset it --output s --sizes zebra",
    "scaling --dataset it --output s --threads -1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    KINDS["dataset"].write(folder / "it")
    return folder


@pytest.mark.parametrize("line", MISTAKES, ids=lambda line: line.replace(LONG, "LONG"))
def test_a_mistake_ends_with_2_and_one_line(
    place: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(place / "minari"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with limits():
        assert main(shlex.split(line)) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("error: ")
    assert len([each for each in error if "Warning" not in each]) == 1
    assert len(error[-1]) < 12_000


@pytest.mark.parametrize("code", [errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.EACCES])
def test_another_path_is_asked_for(code: int) -> None:
    def fail() -> int:
        raise OSError(code, os.strerror(code), "there")

    assert exit_status(fail) == 2


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 1), (errno.EIO, 1), (errno.EMFILE, 1)])
def test_work_that_fails_ends_with_1(code: int, status: int) -> None:
    def fail() -> int:
        raise OSError(code, os.strerror(code))

    assert exit_status(fail) == status


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (3, 3), ("what went wrong", 1)])
def test_an_exit_is_a_status(code: object, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: sys.exit(code)) == status  # type: ignore[arg-type]
    assert ("what went wrong" in capsys.readouterr().err) == (status == 1)


def test_ctrl_c_while_a_command_is_loaded_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.metadata.EntryPoint.load", interrupt)
    assert main(["tasks"]) == 130


STUDIES = [
    "gato_mini", "held_out", "ablation", "learning_curve", "captions", "unseen_tasks", "robustness",
]  # fmt: skip


@pytest.mark.parametrize("study", STUDIES)
def test_studies_have_the_same_statuses(
    study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = importlib.import_module(f"benchmarks.studies.{study}").__file__ or ""
    monkeypatch.setattr("sys.argv", [source, "--zebra"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(source, run_name="__main__")
    assert ended.value.code == 2
    assert "zebra" in capsys.readouterr().err


def test_a_run_without_a_gpu_names_what_to_write(
    place: Path, monkeypatch: pytest.MonkeyPatch, quiet: Console
) -> None:
    from policies.training.settings import TrainSettings

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = TrainSettings(
        (str(place / "it"),), place / "gpu", preset="tiny", steps=2, device="cuda"
    )
    with pytest.raises(ValueError, match=r"device 'cuda' cannot be used .*expected 'auto', 'cpu'"):
        TrainRun(settings, quiet).describe()
