"""What a stranger installs: a light import, versions that agree, files that are in the wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = ("torch", "mujoco", "ale_py", "metaworld", "minigrid", "minari", "h5py", "matplotlib")


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pinned}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    every = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    parsed = [Requirement(line) for line in every]
    return [one for one in parsed if canonicalize_name(one.name) != PROJECT["name"]]


def test_constraints_hold_names_and_versions_alone() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[0-9][0-9A-Za-z.]*", line), line


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_is_pinned_to_a_version_it_allows(requirement: Requirement) -> None:
    pinned = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned), f"{requirement} against {pinned}"


def test_simulator_lock() -> None:
    known_to_work = {"mujoco": "3.3.0", "metaworld": "3.1.1", "dm-control": "1.0.28"}
    assert {name: str(pins()[name]) for name in known_to_work} == known_to_work


def test_the_extra_all_holds_every_suite_but_the_largest() -> None:
    extras = set(PROJECT["optional-dependencies"])
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(everything).extras == extras - {"all", "demo", "dev", "docs", "envpool"}


def test_the_demo_installs_simulators_and_no_trainer() -> None:
    """A network plays; what trains experts or reads other formats is not needed for that."""
    (line,) = PROJECT["optional-dependencies"]["demo"]
    extras = Requirement(line).extras
    needed = [*PROJECT["dependencies"], *(
        each for extra in extras for each in PROJECT["optional-dependencies"][extra]
    )]  # fmt: skip
    names = {canonicalize_name(Requirement(each).name) for each in needed}
    assert names >= {"ale-py", "av", "dm-control", "metaworld", "minigrid", "mujoco"}
    assert not names & {"datasets", "jax", "ray", "sbx-rl", "stable-baselines3", "transformers"}


def test_importing_gato_gym_is_light() -> None:
    """CPU seconds, so that a busy machine does not matter; numpy and gymnasium are most of them."""
    code = (
        "import gymnasium, json, sys, time; start = time.process_time(); import gato_gym; "
        "print(json.dumps([time.process_time() - start, sorted(sys.modules)]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    seconds, modules = json.loads(run.stdout)
    assert [name for name in HEAVY if name in modules] == []
    assert not [name for name in modules if name.startswith(("policies", "benchmarks"))]
    assert seconds < 1.0


@pytest.fixture(scope="module")
def source_and_wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the sources, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("gato_gym", "policies", "benchmarks", "tests", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


def test_wheel_holds_code_assets_and_nothing_else(source_and_wheel: tuple[Path, Path]) -> None:
    source, wheel = source_and_wheel
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(source).as_posix()
        for package in ("gato_gym", "policies", "benchmarks")
        for path in (source / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == expected
    assert "gato_gym/assets/text.model" in packed
    assert wheel.stat().st_size < 30 * 2**20


def test_the_wheel_works_from_another_folder(
    source_and_wheel: tuple[Path, Path], tmp_path: Path
) -> None:
    """Unpacked, as an installer does: the commands are there, and the shipped network plays."""
    installed = tmp_path / "installed"
    zipfile.ZipFile(source_and_wheel[1]).extractall(installed)
    code = f"""
import gato_gym, policies
from gato_gym.commands.main import main
assert policies.__file__.startswith({str(installed)!r}), policies.__file__
bench = "bench --suite mujoco --tasks reacher --episodes 1 --workers 1 --output scored"
raise SystemExit(main(["tasks", "--suite", "mujoco"]) or main(bench.split()))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "11 tasks" in run.stdout
    assert (tmp_path / "scored" / "report.html").is_file()


def test_the_dockerfile_runs_the_demo_as_the_readme_says() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert lines[0].removeprefix("# ") in readme
    assert 'CMD ["make", "demo"]' in lines
    stamp = next(line.removeprefix("RUN make ") for line in lines if line.startswith("RUN make "))
    name = re.search(r"^demo: \$\((\w+)\)$", makefile, re.MULTILINE)
    assert name is not None  # what is installed before is what the demo waits for
    assert f"\n{name[1]} := $(VENV)/{stamp.removeprefix('.venv/')}\n" in makefile
    packages = next(line for line in lines if "apt-get install" in line)
    for package in ("libegl1", "libgl1-mesa-dri"):
        assert package in packages
        assert f"`{package}`" in readme
    version = re.search(r"^FROM python:(\d+\.\d+)-slim$", "\n".join(lines), re.MULTILINE)
    assert version is not None
    assert PROJECT["requires-python"] == f">={version[1]}"
