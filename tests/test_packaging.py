"""What a stranger installs: a light import, versions that agree, files that are in the wheel."""

from __future__ import annotations

import json
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


def test_the_extra_all_holds_every_suite() -> None:
    extras = set(PROJECT["optional-dependencies"])
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(everything).extras == extras - {"all", "demo", "dev", "docs"}


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


def test_wheel_holds_code_assets_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("gato_gym", "policies", "benchmarks", "tests", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(source).as_posix()
        for package in ("gato_gym", "policies", "benchmarks")
        for path in (source / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == expected
    assert "gato_gym/assets/text.model" in packed
