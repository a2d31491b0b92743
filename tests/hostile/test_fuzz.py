"""Whatever is in a file, its reader refuses it or reads it, within memory and time."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import KINDS, limits, places, replaced
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from benchmarks.protocol import Protocol
from benchmarks.store.run_store import RunHeader
from gato_gym import PlanOptions, Vocabulary
from gato_gym.files.bounded_io import as_type, parse_json
from gato_gym.space_json import read_space
from policies.gato.sampling import Sampler
from policies.model.config import NetworkConfig
from policies.rollout.outcomes import EpisodeFailure, EpisodeResult

REFUSED = (ValueError, FileNotFoundError)
FUZZ = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""The same examples everywhere: a failure is one for all."""

Change = tuple[str, float, bytes]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "write", "repeat", "drop"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=9) | st.sampled_from([b"\x00" * 8, b"\xff" * 8, b"9" * 30]),
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, changes: list[Change]) -> bytes:
    """What is left of a file's bytes."""
    for name, where, new in changes:
        at = int(where * len(content))
        before, after = content[:at], content[at:]
        if name == "cut":
            content = before
        elif name == "insert":
            content = before + new + after
        elif name == "write":
            content = before + new + after[len(new) :]
        elif name == "repeat":
            content = before + after[: 10 * len(new)] * 3 + after
        elif name == "drop":
            content = before + after[len(new) :]
        elif after:
            content = before + bytes([after[0] ^ new[0] or 1]) + after[1:]
    return content


@cache
def sound(name: str) -> Path:
    """A sound folder of a kind; kept until the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-")) / "it"
    KINDS[name].write(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _no_folders_stay() -> Iterator[None]:
    yield
    for name in KINDS:
        shutil.rmtree(sound(name).parent)
    sound.cache_clear()


def files_of(name: str) -> list[Path]:
    """The files that a reader of this kind opens, from the folder on."""
    folder = sound(name)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder) for path in paths if path.name != "text.model"]


def read_changed(name: str, file: Path, change: Callable[[bytes], bytes]) -> None:
    """Read a copy of the sound folder whose one file is another."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "it"
        shutil.copytree(sound(name), folder)
        path = folder / file
        path.write_bytes(change(path.read_bytes()))
        try:
            with limits(seconds=60):
                KINDS[name].read(folder)
        except REFUSED as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("name", [name for name in KINDS if name != "dataset"])
@FUZZ
@given(data=st.data())
def test_changed_bytes(name: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(files_of(name)))
    changes = data.draw(CHANGES)
    note(f"{file}: {changes}")
    read_changed(name, file, lambda content: changed(content, changes))


NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, -1, 10**9, 2**31, 1e308])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=8), parts),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ["checkpoint", "expert", "dataset", "run", "shard", "text-shard"])
@FUZZ
@given(data=st.data())
def test_changed_values(name: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from([p for p in files_of(name) if p.suffix == ".json"]))
    value = json.loads((sound(name) / file).read_bytes())
    for place, new in data.draw(
        st.lists(st.tuples(st.sampled_from(sorted(places(value), key=str)), JSON), max_size=3)
    ):
        note(f"{file}: {place} is {new!r}")
        try:
            value = replaced(value, place, new)
        except (KeyError, IndexError, TypeError):  # what was above is gone
            continue
    read_changed(name, file, lambda _: json.dumps(value).encode())


VALUES: dict[str, Callable[[Any], object]] = {
    "network": NetworkConfig.from_json,
    "options": lambda value: PlanOptions.from_json(as_type(dict[str, Any], value, "it")),
    "vocabulary": Vocabulary.from_json,
    "sampler": lambda value: as_type(Sampler, value, "it"),
    "header": lambda value: RunHeader.from_json(as_type(dict[str, Any], value, "it")),
    "protocol": lambda value: Protocol.from_json(as_type(dict[str, Any], value, "it")),
    "result": lambda value: EpisodeResult.from_json(as_type(dict[str, Any], value, "it")),
    "failure": lambda value: EpisodeFailure.from_json(as_type(dict[str, Any], value, "it")),
    "space": lambda value: read_space(json.dumps(value), "it"),
    "text": lambda value: read_space(value, "it"),
}
WORDS = st.sampled_from(
    "width layers heads window layout grids vector_mean patch_size text_start separator episode "
    "temperature protocol policy versions tasks episodes seed simulators version suite task return "
    "length success terminated seconds error type shape low high dtype n start nvec subspaces "
    "max_length min_length charset".split()
)
OBJECTS = st.dictionaries(
    WORDS, JSON | st.sampled_from(["Box", "Dict", "Tuple", "Text", "Discrete", "MultiBinary"])
)


@pytest.mark.parametrize("name", VALUES)
@settings(FUZZ, max_examples=200)
@given(value=JSON | OBJECTS | st.fixed_dictionaries({"type": st.just("Box")}, optional={
    "shape": st.lists(st.integers(-2, 2**40), max_size=3), "low": JSON, "high": JSON,
    "dtype": st.sampled_from(["float32", "uint8", "O", "S99999999", "datetime64", "float128"]),
}))  # fmt: skip
def test_any_value(name: str, value: Any) -> None:
    with limits(seconds=60):
        try:
            VALUES[name](value)
        except (*REFUSED, KeyError) as error:  # the callers name what is missing
            assert len(str(error)) < 2000  # noqa: PT017


@settings(FUZZ, max_examples=300)
@given(
    content=st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789eE+-.\\nul', max_size=99)
)
def test_any_text(content: bytes | str) -> None:
    with limits(seconds=60):
        try:
            parse_json(content, "it")
        except ValueError as error:
            assert str(error).startswith("it is not JSON")  # noqa: PT017


@FUZZ
@given(data=st.data())
def test_changed_episodes(data: st.DataObject) -> None:
    """HDF5 itself reads a file's bytes, so arrays and attributes are changed, not bytes."""
    import h5py

    names = ["observations", "actions", "rewards", "terminations", "truncations", "infos"]
    name = data.draw(st.sampled_from(names))
    shape = data.draw(st.lists(st.sampled_from([0, 1, 5, 20, 21, 2**33]), max_size=3))
    dtype = data.draw(st.sampled_from(["f4", "f8", "i1", "u8", "S3", "?", "c16", "V4"]))

    def change(content: bytes) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=".hdf5") as file:
            Path(file.name).write_bytes(content)
            with h5py.File(file.name, "r+") as episodes:
                group = episodes["episode_0"]
                if name in group:
                    del group[name]
                layout = {"chunks": True} if shape and min(shape) else {}
                group.create_dataset(name, tuple(shape), np.dtype(dtype), **layout)
            return Path(file.name).read_bytes()

    note(f"{name} is {dtype} {shape}")
    read_changed("dataset", Path("data/main_data.hdf5"), change)
