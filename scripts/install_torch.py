"""Install torch of the version in `constraints.txt` beside the running Python: the CPU build unless
there is an NVIDIA GPU, and nothing where a torch is installed already.

    .venv/bin/python scripts/install_torch.py

On Linux the package index's own torch brings several gigabytes of CUDA libraries. The CPU build
lies in PyTorch's index, which uv knows by name. A machine whose pip already finds a CPU build takes
that one; one that cannot reach PyTorch's index falls back to what its package index has.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def pinned(name: str) -> str:
    """The line of `constraints.txt` that pins a package."""
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}=="):
            return line.strip()
    raise SystemExit(f"{CONSTRAINTS.name} does not pin {name}: expected a line {name}==VERSION")


def runs(command: list[str]) -> bool:
    """Whether a command exists and succeeds; its output is not shown."""
    present = shutil.which(command[0]) is not None
    return present and subprocess.run(command, capture_output=True, check=False).returncode == 0


def pip_finds_cpu_build(requirement: str) -> bool:
    """Whether pip, as it is set up here, would take a build marked as CPU."""
    command = [*PIP, "install", "--dry-run", "--no-deps", "--quiet", "--report", "-", requirement]
    report = subprocess.run(command, capture_output=True, check=False)
    if report.returncode:
        return False
    versions = [package["metadata"]["version"] for package in json.loads(report.stdout)["install"]]
    return any(version.endswith("+cpu") for version in versions)


def install_cpu_build(requirement: str) -> bool:
    """Take the CPU build from PyTorch's index; whether that worked."""
    subprocess.run([*PIP, "install", "--quiet", pinned("uv")], check=True)
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
    command += ["--torch-backend", "cpu", "--no-deps", requirement]
    return subprocess.run(command, check=False).returncode == 0


def main() -> None:
    if importlib.util.find_spec("torch") is not None:
        return
    requirement = pinned("torch")
    cuda_by_default = platform.system() == "Linux" and not runs(["nvidia-smi"])
    if cuda_by_default and not pip_finds_cpu_build(requirement):
        if install_cpu_build(requirement):
            return
        print("No CPU build could be had: installing the package index's own torch.", flush=True)
    install = [*PIP, "install", "--no-compile", requirement, "--constraint", str(CONSTRAINTS)]
    subprocess.run(install, check=True)


if __name__ == "__main__":
    main()
