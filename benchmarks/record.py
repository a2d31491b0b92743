"""A run's folder: what it set out to play, and every episode as soon as it has ended.

* :class:`RunHeader` -- ``run.json``: protocol, policy and versions.
* :class:`Record` -- the folder: opened, appended to, and resumed.

``results.jsonl`` holds an episode a line (:meth:`EpisodeResult.to_json`), in the order in which
they ended. A line cut short by a kill is dropped on resume and its episode played again.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.protocol import (
    BenchmarkError,
    EpisodeKey,
    EpisodeResult,
    Protocol,
    differences,
    installed_versions,
    listed,
)

FORMAT = 1
"""Version of ``run.json``, ``results.jsonl`` and ``summary.json``."""

_PACKAGES = ("gato-gym", "gymnasium", "minigrid", "metaworld", "mujoco", "numpy", "torch")


@dataclass(frozen=True)
class RunHeader:
    """What a run set out to do.

    Attributes:
        protocol: What is played and how it is scored.
        policy: Who plays: JSON object with name, prompt, deterministic, seed, and ``weights``,
            a hash of the checkpoint's files but its card, or null.
        versions: Versions of Python and of the packages that matter.
    """

    protocol: Protocol
    policy: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=lambda: installed_environment())

    def to_json(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        return {
            "format": FORMAT,
            "protocol_hash": self.protocol.hash,
            "protocol": self.protocol.to_json(),
            "policy": dict(self.policy),
            "versions": dict(self.versions),
        }


def installed_environment() -> dict[str, str]:
    """Versions of Python and of the packages that a score may depend on."""
    return {"python": platform.python_version(), **installed_versions(_PACKAGES)}


class Record:
    """The folder of one run.

    Nothing is written before the first episode, so that a run that fails to start leaves no
    folder behind.

    Args:
        folder: Where to record.
        header: What the run sets out to do.
        resume: Take up what the folder holds. Without it the folder must be empty or absent;
            with it an empty or absent folder simply starts a new run.

    Attributes:
        folder: As given.
        header: As given.
        results: Episodes recorded so far.

    Raises:
        BenchmarkError: The folder is not empty and ``resume`` is False; or it was recorded
            under another protocol or policy; or a record in it cannot be read.
    """

    def __init__(self, folder: Path, header: RunHeader, *, resume: bool) -> None:
        self.folder = folder
        self.header = header
        self.results: dict[EpisodeKey, EpisodeResult] = {}
        self._lines: IO[bytes] | None = None
        if folder.exists() and not folder.is_dir():
            raise BenchmarkError(f"{folder} is a file, expected a folder: pass another --output")
        if not folder.exists() or not any(folder.iterdir()):
            return
        if not resume:
            raise BenchmarkError(
                f"{folder} is not empty, expected a new folder: pass --resume to continue what it "
                "holds, or another --output"
            )
        self._check_header()
        self._load_results()

    def append(self, result: EpisodeResult) -> None:
        """Record an episode; it is in the file when this returns."""
        if self._lines is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / "run.json", self.header.to_json())
            self._lines = (self.folder / "results.jsonl").open("ab")
        self._lines.write(json.dumps(result.to_json()).encode() + b"\n")
        self._lines.flush()
        self.results[result.key] = result

    def close(self) -> None:
        """Close the file."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def pending(self) -> dict[str, list[EpisodeKey]]:
        """The protocol's episodes that are not recorded yet, by task."""
        protocol = self.header.protocol
        return {
            task: [key for key in protocol.episodes_of(task) if key not in self.results]
            for task in protocol.tasks
        }

    def _check_header(self) -> None:
        path = self.folder / "run.json"
        try:
            recorded = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise BenchmarkError(
                f"{path} cannot be read ({error}), expected the record of a run: pass another "
                "--output"
            ) from error
        asked = self.header.to_json()
        # Simulators are part of the protocol; other versions may differ between two sittings.
        found = [
            difference
            for part in ("format", "protocol", "policy")
            for difference in differences(recorded.get(part), asked[part], path=part)
        ]
        if found:
            raise BenchmarkError(
                f"{self.folder} holds another run ({listed(found)}): give the recorded arguments "
                "to resume it, or another --output"
            )

    def _load_results(self) -> None:
        path = self.folder / "results.jsonl"
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        expected = {
            key
            for task in self.header.protocol.tasks
            for key in self.header.protocol.episodes_of(task)
        }
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                result = EpisodeResult.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise BenchmarkError(
                    f"{path}, line {number}: {error!r}, expected an episode: delete the line to "
                    "play it again"
                ) from error
            if result.key not in expected:
                raise BenchmarkError(
                    f"{path}, line {number}: {result.key} is no episode of this protocol: pass "
                    "another --output"
                )
            self.results[result.key] = result


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file so that it is never seen half written."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)
