"""The suite of docs/suites.md, in a package outside the tree: every command knows its tasks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
SMALL = {
    "--minutes 2": "--steps 3",
    "--episodes 50": "--episodes 8",
    "--episodes 20": "--episodes 5",
}
COMMANDS = ("collect", "train", "bench", "watch", "expert")
IN_ORDER = """\
import contextlib, io, json, runpy, shlex, sys

if __name__ == "__main__":
    printed = []
    for line in open("commands.txt"):
        program, *rest = shlex.split(line)
        module = "gato_gym" if program == "gato-gym" else rest[1]
        sys.argv = [module, *(rest if program == "gato-gym" else rest[2:])]
        with contextlib.redirect_stdout(io.StringIO()) as text:
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as ended:
                assert not ended.code, (line, ended.code, text.getvalue())
        printed.append((rest[0] if program == "gato-gym" else module, text.getvalue()))
    print(json.dumps(printed))
"""
"""Runs the page's commands in one process, which imports what they need once."""


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``site`` holds the package, installed as the page says."""
    folder = tmp_path_factory.mktemp("outside")
    source = folder / "source"
    source.mkdir()
    (source / "cars.py").write_text(block("python"))
    (source / "pyproject.toml").write_text(block("toml"))
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    run(folder, *pip, "--disable-pip-version-check", "--target", "site", "./source")
    return folder


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join([str(folder / "site"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_suite_is_one_file_of_forty_lines() -> None:
    assert len(block("python").splitlines()) <= 40


def test_every_command_of_the_page_knows_the_suite(folder: Path) -> None:
    found = re.search(r"^```\n(gato-gym tasks .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    text = found[1]
    for large, small in SMALL.items():
        assert large in text
        text = text.replace(large, small)
    text = text.replace("expert train cars-reach", "expert train cars-reach --steps 4096")
    (folder / "commands.txt").write_text(text)
    (folder / "in_order.py").write_text(IN_ORDER)
    printed = dict(json.loads(run(folder, "in_order.py").stdout))
    assert set(printed) == {"tasks", "benchmarks.experts", *COMMANDS}
    assert re.search(r"cars-pass +- +- +300 +program", printed["tasks"])
    assert "2 tasks" in printed["tasks"]
    entry = json.loads((folder / "site/cars.json").read_text())["suites"]["cars"]
    means = {task: {who: of["mean"] for who, of in each.items()}
             for task, each in entry["tasks"].items()}  # fmt: skip
    assert list(means) == ["cars-pass", "cars-reach"]
    assert all(mean["random"] < 0 < 80 < mean["expert"] for mean in means.values())
    assert "cars" in next((folder / "results").glob("cars-cars-*/report.html")).read_text()
    assert (folder / "pass.mp4").stat().st_size > 0
    assert (folder / "runs/experts/cars-reach/expert/model.safetensors").is_file()


def test_the_expert_scores_one(folder: Path) -> None:
    work = ["--episodes", "5", "--workers", "2"]  # workers are processes of their own
    run(folder, "-m", "benchmarks.experts", "--suite", "cars", *work)
    run(folder, "-m", "gato_gym", "bench", "--suite", "cars", "--policy", "expert", *work,
        "--output", "scored")  # fmt: skip
    summary = json.loads((folder / "scored/summary.json").read_text())
    scores = [task["normalised"] for task in summary["tasks"].values()]
    assert scores == pytest.approx([1.0, 1.0])


def test_an_installed_suite_is_known_after_any_import(folder: Path) -> None:
    """Whichever is imported first imports the others, and they it."""
    use = "import gymnasium as gym; print(len(gato_gym.list_tasks('cars')), "
    use += "gym.make('Gato/cars-reach').spec.max_episode_steps)"
    make = "import gymnasium; gymnasium.make('Gato/cars-reach')"
    for first in (f"gato_gym; {make}", f"policies; {make}", "cars"):
        done = run(folder, "-c", f"import {first}; import gato_gym; {use}")
        assert (done.stdout, done.stderr) == ("2 300\n", "")


def test_a_script_registers_a_suite_that_is_not_installed(folder: Path) -> None:
    """For itself and for the workers that it starts."""
    (folder / "own_script.py").write_text(
        "import sys, gato_gym, cars\n"
        "from benchmarks.run import main\n"
        "gato_gym.register_suite(cars.SUITE)\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(main(sys.argv[1:]))\n"
    )
    bench = "--suite cars --policy random --episodes 1 --workers 2 --output scripted"
    places = os.pathsep.join([str(folder / "source"), str(ROOT)])
    run(folder, "own_script.py", *bench.split(), PYTHONPATH=places)
    assert (folder / "scripted/summary.json").is_file()


def test_a_broken_suite_is_left_out_with_a_warning(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[gato_gym.suites]\nbroken = no_such_module:SUITE\n")
    done = run(
        folder,
        *("-m", "gato_gym", "tasks", "--suite", "babyai"),
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(folder / "site"), str(ROOT)]),
    )
    assert "39 tasks" in done.stdout
    assert "suite 'broken' (no_such_module:SUITE) is left out" in done.stderr
