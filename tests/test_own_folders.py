"""A folder with ``policies/`` and ``benchmarks/`` of its own hides nothing from ``gato-gym``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EDITABLE = f"""
import sys
from importlib.machinery import PathFinder

class Finder:  # as setuptools installs a project in place: asked after all of sys.path
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in ("gato_gym", "policies", "benchmarks"):
            return PathFinder.find_spec(name, [{str(ROOT)!r}])

sys.meta_path.insert(sys.meta_path.index(PathFinder) + 1, Finder)
"""
SCRIPT = """
import sys
from gato_gym.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
"""
MINE = """
from policies import make_policy

def make(env):
    return make_policy("random", env=env)
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs Python in the folder, with the project installed in place."""
    (tmp_path / "sitecustomize.py").write_text(EDITABLE)
    (tmp_path / "gato-gym").write_text(SCRIPT)
    folder = tmp_path / "folder"
    for name in ("policies", "benchmarks"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemError('a package of the folder')")
    (folder / "mine.py").write_text(MINE)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_command_uses_what_is_installed(run: Run) -> None:
    """In this process and in the workers that it starts."""
    arguments = "--suite babyai --tasks open,go-to-obj --policy mine:make --episodes 1 --workers 2"
    done = run("../gato-gym", "bench", *arguments.split(), "--output", "scored")
    assert done.returncode == 0, done.stderr
    assert "episodes and figures are in scored" in done.stdout


def test_a_module_is_run_as_the_readme_says(run: Run) -> None:
    assert "`python -P -m benchmarks.run`" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "a package of the folder" in run("-m", "benchmarks.run", "--help").stderr
    done = run("-P", "-m", "benchmarks.run", "--help")
    assert done.returncode == 0, done.stderr
    assert "--suite" in done.stdout
