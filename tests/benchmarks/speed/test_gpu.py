"""The check of a GPU works on a CPU, with few packages, and loses nothing that it has measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from few_packages import link_packages

from benchmarks.speed import gpu, gpu_checks
from benchmarks.speed.comparison import Comparison
from benchmarks.speed.gpu_checks import Check
from policies.model import transformer
from policies.model.block import Block

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
NEEDED = ("torch", "numpy", "safetensors", "sentencepiece", "gymnasium", "rich", "jinja2")
QUICK = """
import runpy, sys
from benchmarks.speed import gpu
gpu.LONGEST_ROUND = 0.001
runpy.run_module("benchmarks.speed", run_name="__main__", alter_sys=True)
"""


def test_every_part_runs_with_few_packages(tmp_path: Path) -> None:
    packages, output = tmp_path / "packages", tmp_path / "gpu.json"
    packages.mkdir()
    link_packages(packages, NEEDED)
    assert not {"tyro", "minari", "h5py", "ale_py"} & {path.name for path in packages.iterdir()}
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)]),
        "OMP_NUM_THREADS": "1",
        "TORCH_COMPILE_DISABLE": "1",  # a compiler takes half a minute
    }
    command = ["gpu", "--device", "cpu", "--minutes", "30", "--output", str(output)]
    run = subprocess.run(
        [sys.executable, "-S", "-c", QUICK, *command],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "on a CPU all sizes are tiny, such as mini instead of 1.18b" in run.stdout
    saved = json.loads(output.read_text())
    assert saved["tiny"] is True
    assert saved["sizes"]["rows"] == [2, 8]
    states = {part["name"]: part["state"] for part in saved["parts"]}
    assert list(states) == [part.name for part in gpu.PARTS]
    assert [state for state in states.values() if state != "done"] == [
        "left out: the tests marked gpu need one",
        "left out: a CPU trains without compiling",
        "left out: ale-py is not installed",
    ]
    checks = [check["name"] for part in saved["parts"] for check in part["checks"]]
    assert len(checks) == 8
    assert "dense attention, float32: values' gradient" in checks
    works = [each["name"] for part in saved["parts"] for each in part["comparisons"]]
    assert len(works) == 6


def test_only_some_parts(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    parts = [gpu.Part("the one", passing, 1.0), gpu.Part("the other", passing, 1.0)]
    monkeypatch.setattr(gpu, "PARTS", parts)
    assert gpu.main(["--device", "cpu", "--minutes", "1", "--only", "other"]) == 0
    assert "the other (" in (said := capsys.readouterr().out)
    assert "the one (" not in said
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "--only", "nothing"])
    assert "only is 'nothing': expected words of one of the one; the other" in (
        capsys.readouterr().err
    )


def passing(on: gpu.Setting) -> Iterator[Check | Comparison]:
    yield Check("right", 0.5, 1.0)
    yield Comparison.of("work", "slow", "fast", [(1.0, 2.0)], "at least 2")


def failing(on: gpu.Setting) -> Iterator[Check]:
    yield Check("before the fault", 0.0, 0.0)
    raise RuntimeError("an illegal address")


def endless(on: gpu.Setting) -> Iterator[Check]:
    yield Check("before the end", 0.0, 0.0)
    while True:
        pass


def wrong(on: gpu.Setting) -> Iterator[Check]:
    yield Check("wrong", float("nan"), 1.0)


def stopped(on: gpu.Setting) -> Iterator[Check]:
    yield Check("before Ctrl-C", 0.0, 0.0)
    raise KeyboardInterrupt


def run_parts(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *works: Any, minutes: float = 10.0
) -> tuple[int, list[dict[str, Any]]]:
    """The exit status, and the parts that are saved."""
    monkeypatch.setattr(gpu, "PARTS", [gpu.Part(work.__name__, work, 1.0) for work in works])
    output = folder / "gpu.json"
    status = gpu.main(["--device", "cpu", "--minutes", str(minutes), "--output", str(output)])
    return status, json.loads(output.read_text())["parts"]


def test_a_failed_part_keeps_its_results_and_lets_the_others_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    during = []

    def looking(on: gpu.Setting) -> Iterator[Check]:
        yield Check("first", 0.0, 0.0)
        during.append(json.loads((tmp_path / "gpu.json").read_text())["parts"][-1])

    status, (first, second, third) = run_parts(monkeypatch, tmp_path, failing, looking, passing)
    assert status == 1
    assert first["state"] == "failed: RuntimeError: an illegal address"
    assert [check["name"] for check in first["checks"]] == ["before the fault"]
    assert (second["state"], third["state"]) == ("done", "done")
    assert during[0]["checks"][0]["name"] == "first", "saved before the part is over"
    assert third["comparisons"][0]["ratio"] == 2.0
    assert "failed: RuntimeError" in capsys.readouterr().out


def test_the_exit_status_says_whether_all_checks_hold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_parts(monkeypatch, tmp_path, passing)[0] == 0
    assert "BROKEN" not in capsys.readouterr().out
    assert run_parts(monkeypatch, tmp_path, passing, wrong)[0] == 1
    assert "BROKEN" in capsys.readouterr().out
    status, parts = run_parts(monkeypatch, tmp_path, stopped, passing)
    assert (status, [part["state"] for part in parts]) == (130, ["stopped"])
    assert parts[0]["checks"][0]["name"] == "before Ctrl-C"


def test_a_part_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, (first, second) = run_parts(monkeypatch, tmp_path, endless, endless, minutes=0.02)
    assert (status, first["state"], second["state"]) == (0, "out of time", "out of time")


def test_what_cannot_be_done_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in {
        ("--minutes", "0"): "minutes is 0.0: expected more than 0",
        ("--device", "quantum"): "device 'quantum' cannot be used",
        ("--device", "meta"): "device is 'meta': expected cuda or cpu",
        ("--device", "cpu", "--output", str(tmp_path)): "Is a directory",
    }.items():
        with pytest.raises(SystemExit) as end:
            gpu.main(arguments)
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def test_checks_break_where_something_is_computed_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = gpu_checks.attend
    monkeypatch.setattr(
        gpu_checks, "attend", lambda q, k, v, mask: right(q, k, v * (1 + 1e-3 * (len(v) > 0)), mask)
        if v.dtype == torch.float32 else right(q, k, v, mask),
    )  # fmt: skip
    attended = gpu_checks.attention_against_float64(device=CPU, length=64, heads=1, size=8)
    broken = [check.name.split(": ")[1] for check in attended if not check.holds]
    assert broken == ["forward", "queries' gradient", "keys' gradient", "values' gradient"]

    def off(*arguments: Any) -> torch.Tensor:
        return Block.step(*arguments) * 1.01

    assert all(check.holds for check in gpu_checks.cached_against_full("0.4m", device=CPU))
    monkeypatch.setattr(transformer, "compiled_step", lambda *_: off)
    (check,) = gpu_checks.compiled_against_plain("0.4m", device=CPU)
    assert not check.holds
    monkeypatch.setattr(transformer, "compiled_step", lambda *_: Block.step)
    (check,) = gpu_checks.compiled_against_plain("0.4m", device=CPU)
    assert check.holds


def test_a_run_with_other_weights_has_other_losses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainers = []

    def once_off(*arguments: Any, **options: Any) -> Any:
        trainer = gpu_checks_trainer(*arguments, **options)
        trainers.append(trainer)
        if len(trainers) == 2:
            with torch.no_grad():
                trainer.network.head.weight.mul_(2)
        return trainer

    gpu_checks_trainer = gpu_checks.make_trainer
    monkeypatch.setattr(gpu_checks, "make_trainer", once_off)
    checks = list(gpu_checks.losses_against_cpu("0.4m", tmp_path, device=CPU, steps=4))
    assert [check.name for check in checks] == [
        "0.4m: float32 losses of 1 steps", "0.4m: float32 losses of 4 steps, means of 1",
    ]  # fmt: skip
    assert not checks[0].holds
