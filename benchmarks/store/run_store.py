"""A run's folder: what it set out to play, and every episode as soon as it has ended.

* :class:`RunHeader` -- ``run.json``: protocol, policy and versions.
* :class:`Record` -- the folder: opened, appended to, and resumed; locked while it is open.
* :func:`read_run` -- the folder of a run, only to look at.
* :class:`RecordError` -- an episode could not be written down.

``results.jsonl`` holds an episode a line (:meth:`EpisodeResult.to_json`,
:meth:`EpisodeFailure.to_json`), in the order in which they ended. A line cut short by a kill or a
full disk is dropped on resume and its episode played again, and so is one that failed; of several
lines of an episode the last one counts.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from benchmarks.protocol import BenchmarkError, Protocol, differences, listed
from gato_gym.files.atomic_io import no_link, write_json
from gato_gym.files.bounded_io import as_type, parse_json, read_bytes, read_json
from gato_gym.files.folder_lock import NAME as LOCK
from gato_gym.files.folder_lock import FolderInUseError, FolderLock
from gato_gym.simulators import installed_versions
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, EpisodeResult, Outcome

FORMAT = 1
"""Version of ``run.json`` and ``results.jsonl``."""

LARGEST_RESULTS = 2**30
"""Bytes of the largest ``results.jsonl`` that is read."""

_PACKAGES = ("gato-gym", "gymnasium", "minigrid", "metaworld", "mujoco", "numpy", "torch")


class RecordError(RuntimeError):
    """An episode could not be written down; those before it are kept."""


@cache
def whole_environment() -> Mapping[str, Any]:
    """What this process runs on and with, so that it can be installed again.

    Returns:
        ``system``, ``machine`` and ``cores``; ``packages``, versions by name, sorted.
    """
    versions = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    names = sorted((name for name in versions if name), key=str.lower)
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: versions[name] for name in names},
    }


@dataclass(frozen=True)
class RunHeader:
    """What a run set out to do.

    Attributes:
        protocol: What is played and how it is scored.
        policy: Who plays: JSON object with name, prompt, deterministic, seed, and ``weights``,
            a hash of the checkpoint's files but its card, or null.
        versions: Versions of Python and of the packages that matter.
        command: What was typed; None where it is not known.
        environment: Everything installed, and on what: the system, the processor's kind and
            number of cores, and the version of each package by name. Empty where not known.
        left_out: Tasks of the protocol that the policy cannot play, and why, by task id.
    """

    protocol: Protocol
    policy: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=lambda: installed_environment())
    command: str | None = None
    environment: Mapping[str, Any] = field(default_factory=lambda: whole_environment())
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def episodes(self) -> int:
        """How many episodes there are to play, over all tasks."""
        protocol = self.protocol
        return protocol.episodes * sum(task not in self.left_out for task in protocol.tasks)

    def to_json(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        return {
            "format": FORMAT,
            "protocol_hash": self.protocol.hash,
            "protocol": self.protocol.to_json(),
            "policy": dict(self.policy),
            "versions": dict(self.versions),
            "command": self.command,
            "environment": dict(self.environment),
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunHeader:
        """The inverse of :meth:`to_json`; what older runs do not say is left empty.

        Raises:
            KeyError: A field that every run has is missing.
            ValueError: One is of another type.
        """
        return cls(
            Protocol.from_json(as_type(dict[str, Any], value["protocol"], "protocol")),
            as_type(dict[str, Any], value["policy"], "policy"),
            as_type(dict[str, str], value["versions"], "versions"),
            command=as_type(str | None, value.get("command"), "command"),
            environment=as_type(dict[str, Any], value.get("environment") or {}, "environment"),
            left_out=as_type(dict[str, str], value.get("left_out") or {}, "left_out"),
        )


def installed_environment() -> dict[str, str]:
    """Versions of Python and of the packages that a score may depend on."""
    return {"python": platform.python_version(), **installed_versions(_PACKAGES)}


class Record:
    """The folder of one run, which no other process may write to until it is closed.

    Nothing but the lock is written before the first episode, so that a run that fails to start
    leaves no folder behind.

    Args:
        folder: Where to record.
        header: What the run sets out to do.
        resume: Take up what the folder holds. Without it the folder must be empty or absent;
            with it an empty or absent folder simply starts a new run.

    Attributes:
        folder: As given.
        header: As given.
        results: Episodes played so far.
        failures: Episodes that failed and have not been played since.

    Raises:
        BenchmarkError: The folder is not empty and ``resume`` is False; or it was recorded
            under another protocol or policy; or a record in it cannot be read, or is a link; or
            another process writes to it.
    """

    def __init__(self, folder: Path, header: RunHeader, *, resume: bool) -> None:
        self.folder = folder
        self.header = header
        self.results: dict[EpisodeKey, EpisodeResult] = {}
        self.failures: dict[EpisodeKey, EpisodeFailure] = {}
        self._lines: IO[bytes] | None = None
        if folder.exists() and not folder.is_dir():
            raise BenchmarkError(f"{folder} is a file, expected a folder: pass another --output")
        try:
            self._lock = FolderLock(folder)
        except FolderInUseError as error:
            raise BenchmarkError(f"{error} (--output)") from error
        except OSError as error:
            raise BenchmarkError(
                f"{folder} cannot be written to ({error}), expected a folder with room: pass "
                "another --output"
            ) from error
        try:
            if all(path.name == LOCK for path in folder.iterdir()):
                return
            if not resume:
                raise BenchmarkError(
                    f"{folder} is not empty, expected a new folder: pass --resume to continue what "
                    "it holds, or another --output"
                )
            self._check_links()
            self._check_header()
            self._load_results()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def append(self, outcome: Outcome) -> None:
        """Record an episode; it is in the file when this returns.

        Raises:
            RecordError: It could not be written, as on a full disk. The file ends as it did
                before.
        """
        line = json.dumps(outcome.to_json()).encode() + b"\n"
        try:
            if self._lines is None:
                write_json(self.folder / "run.json", self.header.to_json())
                path = self.folder / "results.jsonl"
                self._lines = open(path, "ab", buffering=0, opener=no_link)  # noqa: SIM115
            _write_line(self._lines, line)
        except OSError as error:
            raise RecordError(
                f"{outcome.key.task}, seed {outcome.key.seed} could not be recorded in "
                f"{self.folder} ({error}): make room, then resume; what is recorded is kept"
            ) from error
        if isinstance(outcome, EpisodeFailure):
            self.failures[outcome.key] = outcome
        else:
            self.results[outcome.key] = outcome
            self.failures.pop(outcome.key, None)

    def close(self) -> None:
        """Close the file, and let others write to the folder."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        self._lock.release()

    def pending(self) -> dict[str, list[EpisodeKey]]:
        """The protocol's episodes that are not played yet, by task; failed ones too."""
        protocol = self.header.protocol
        return {
            task: [key for key in protocol.episodes_of(task) if key not in self.results]
            for task in protocol.tasks
            if task not in self.header.left_out
        }

    def _check_links(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_symlink():
                raise BenchmarkError(
                    f"{path} is a link, expected a run's own file: what it points to would be "
                    "written to; take a copy without links, or pass another --output"
                )

    def _check_header(self) -> None:
        path = self.folder / "run.json"
        try:
            recorded = as_type(dict[str, Any], read_json(path), "it")
            protocol = RunHeader.from_json(recorded).protocol
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(
                f"{path} cannot be read ({error}), expected the record of a run: pass another "
                "--output"
            ) from error
        header = self.header.to_json()
        # Simulators are part of the protocol; other versions may differ between two sittings.
        parted = protocol.differences(self.header.protocol) + [
            difference
            for part in ("format", "policy")
            for difference in differences(recorded.get(part), header[part], path=part)
        ]
        if parted:
            raise BenchmarkError(
                f"{self.folder} holds another run ({listed(parted)}): give the recorded arguments "
                "to resume it, or another --output"
            )

    def _load_results(self) -> None:
        path = self.folder / "results.jsonl"
        content = read_bytes(path, largest=LARGEST_RESULTS) if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        self.results, self.failures = _outcomes(path, whole, self.header.protocol)


@dataclass(frozen=True)
class RecordedRun:
    """What a run's folder holds.

    Attributes:
        folder: The run's folder.
        header: ``run.json``.
        results: Episodes played, by key.
        failures: Episodes that failed and were not played since, by key.
    """

    folder: Path
    header: RunHeader
    results: Mapping[EpisodeKey, EpisodeResult]
    failures: Mapping[EpisodeKey, EpisodeFailure]


def read_run(folder: Path) -> RecordedRun:
    """Read a run, which may still be under way; nothing is changed.

    Raises:
        BenchmarkError: The folder holds no run, or one of another format.
    """
    path = folder / "run.json"
    try:
        recorded = as_type(dict[str, Any], read_json(path), "run.json")
        if recorded["format"] != FORMAT:
            raise BenchmarkError(
                f"{path} is of format {recorded['format']!r:.80}, expected {FORMAT}: read it with "
                "the version of gato-gym that wrote it"
            )
        header = RunHeader.from_json(recorded)
        content = read_bytes(folder / "results.jsonl", largest=LARGEST_RESULTS)
    except BenchmarkError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BenchmarkError(
            f"{folder} cannot be read ({error!r}), expected the folder of a run: give what was "
            "its --output"
        ) from error
    whole = content[: content.rfind(b"\n") + 1]
    return RecordedRun(folder, header, *_outcomes(folder / "results.jsonl", whole, header.protocol))


def _outcomes(
    path: Path, content: bytes, protocol: Protocol
) -> tuple[dict[EpisodeKey, EpisodeResult], dict[EpisodeKey, EpisodeFailure]]:
    """The episodes in ``results.jsonl``: played, and failed without being played since."""
    results: dict[EpisodeKey, EpisodeResult] = {}
    failures: dict[EpisodeKey, EpisodeFailure] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            value = parse_json(line, "the line")
            kind = EpisodeFailure if "error" in value else EpisodeResult
            outcome = kind.from_json(value)
        except (ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(
                f"{path}, line {number}: {error!r}, expected an episode: delete the line to "
                "play it again"
            ) from error
        if not protocol.has_episode(outcome.key):
            raise BenchmarkError(
                f"{path}, line {number}: {outcome.key} is no episode of this protocol: pass "
                "another --output"
            )
        if isinstance(outcome, EpisodeFailure):
            failures[outcome.key] = outcome
        else:
            results[outcome.key] = outcome
            failures.pop(outcome.key, None)
    return results, failures


def _write_line(file: IO[bytes], line: bytes) -> None:
    """Append all of a line to an unbuffered file, or nothing of it."""
    before = file.seek(0, os.SEEK_END)
    left = memoryview(line)
    try:
        while left:
            left = left[file.write(left) :]
    except BaseException:
        file.truncate(before)
        raise
