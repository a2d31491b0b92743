"""Memory that is freed is used again, without a fault for each of its pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from policies.allocation import keep_memory

kept = keep_memory() if sys.argv[1] == "keep" else True

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
print(int(kept), max(faults() for _ in range(3)))
"""


def run(what: str) -> tuple[bool, int]:
    command = [sys.executable, "-c", FAULTS, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return kept == "1", int(faults)


def test_freed_memory_is_used_again() -> None:
    kept, faults = run("keep")
    assert kept == sys.platform.startswith("linux")
    assert not kept or faults < 16, "an array of 16 MiB has 4,096 pages"


def test_elsewhere_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    from policies.allocation import keep_memory

    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_memory()
