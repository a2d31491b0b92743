"""Episodes in HDF5 files of Minari's layout, one group an episode.

* :func:`append_episode`, :func:`read_episode` -- one episode, to and from an open file.
* :func:`copy_episode` -- from one open file to another, without decoding.
* :func:`count_steps`, :func:`read_rewards` -- the length and the rewards of an episode in a file.
* :func:`check_episode` -- refuses one whose numbers are in other files, or take far more memory.
* :func:`drop_unfinished` -- removes an episode of which only a part was written.

Minari reads these files as its own. Minari itself writes a resizable, chunked array for every
field, which takes four times the space and three times the time for episodes of some tens of steps.

Members of no fixed size (of Sequence, OneOf and Graph spaces) are JSON texts, which this module
reads back. A key that contains "/", as dm_control's do, is stored with "%2F"; Minari reads neither.

Overlapping stacks of images are stored once: the episode's group contains ``frames`` with lossless
compression, and its ``observations`` is a virtual HDF5 array of them, so that Minari and h5py read
the stacks unchanged.

What is read lies in the file itself: links, external storage and virtual arrays of other files,
which HDF5 would follow to any file, are refused.
"""

from __future__ import annotations

import errno
import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import h5py
import numpy as np
from gymnasium import spaces
from h5py import h5a, h5d, h5g, h5i, h5l, h5o, h5p, h5s, h5t
from numpy.typing import NDArray

from gato_gym.episodes.frames import frames_of, stacks_of
from gato_gym.files.bounded_io import parse_json

if TYPE_CHECKING:
    from gato_gym.episodes.episode import Episode

P = ParamSpec("P")
R = TypeVar("R")

EXECUTED, DISTRIBUTION = b"executed_actions", b"action_distribution"
INFO = b"options/info"
FRAMES = b"frames"
OBSERVATIONS = b"observations"
FRAMES_IN_CHUNK = 16
DEFLATE = 4
"""Compression of frames: a tenth of a millisecond each, and Pong in a hundred bytes."""

LARGEST_ARRAY, DEFLATE_RATIO, DEEPEST = 4 * 2**30, 1032, 32
"""Bytes of the largest array of an episode that is read, how many bytes one of a compressed array
stands for at most, and how many groups may be in one another."""

SPARE_BYTES = 8 * 2**20
"""Room that is left on the disk: a file in which a write has failed cannot be read again."""

STEPS = b"total_steps"
"""Attribute of an episode, written last."""

TUPLE_INDEX = "_index_"
TUPLE, MEMBERS = b"tuple", b"members"
"""Attributes: of the group of an empty tuple, and of texts that are members as JSON."""

COMPACT_BYTES = 48_000
"""Largest array in an object's header, whose limit is 64 KiB."""


def open_file(path: Any, mode: str) -> h5py.File:
    """Open or create a file of episodes (modes of ``h5py.File``); its groups keep their order."""
    return h5py.File(path, mode, libver=("earliest", "v110"), track_order=True)


def group_name(index: int) -> bytes:
    """Name of episode ``index``, as in Minari."""
    return f"episode_{index}".encode()


def _damage_named(read: Callable[P, R]) -> Callable[P, R]:
    """Errors of the HDF5 library, and of what it read, as a ValueError that names the place."""

    @functools.wraps(read)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return read(*args, **kwargs)
        except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
            file, index = args[:2]
            raise ValueError(
                f"episode {index} of {getattr(file, 'filename', file)} is damaged ({error}): "
                "take a fresh copy of the dataset"
            ) from error

    return named


def append_episode(file: h5py.File, index: int, episode: Episode) -> None:
    """Write an episode as number ``index``; Minari expects 0, 1, 2, …

    Raises:
        OSError: The disk has too little room; the file stays as it was.
        ValueError: It has no step.
    """
    if not episode.length:
        raise ValueError(f"episode {index} has no step: expected one or more")
    frames = _frames(episode.observations)
    parts = (episode.observations if frames is None else frames, episode.actions, episode.rewards,
             episode.executed, episode.distribution)  # fmt: skip
    needed = _bytes_of(parts) + SPARE_BYTES
    if (free := shutil.disk_usage(Path(file.filename).parent).free) < needed:
        raise OSError(
            errno.ENOSPC, f"{free} bytes of room, expected {needed} for an episode: make room"
        )
    group = h5g.create(file.id, group_name(index))
    _write_attribute(group, b"id", np.int64(index))
    if episode.seed is not None:
        _write_attribute(group, b"seed", np.int64(episode.seed))
    _write_attribute(group, INFO, np.bytes_(json.dumps(episode.info).encode()))
    if frames is None:
        _write(group, OBSERVATIONS, episode.observations)
    else:
        _write_frames(group, frames)
        _link_stacks(file, index, episode.observations.shape)
    _write(group, b"actions", episode.actions)
    _write(group, b"rewards", episode.rewards)
    _write(group, b"terminations", episode.terminations)
    _write(group, b"truncations", episode.truncations)
    infos = {EXECUTED: episode.executed, DISTRIBUTION: episode.distribution}
    if any(part is not None for part in infos.values()):
        infos_group = h5g.create(group, b"infos")
        for name, part in infos.items():
            if part is not None:
                _write(infos_group, name, part)
    _write_attribute(group, STEPS, np.int64(episode.length))
    file.flush()


@_damage_named
def read_episode(file: h5py.File, index: int, *, task: str) -> Episode:
    """Read episode ``index`` of a task.

    Raises:
        ValueError: It is not in this file, see :func:`check_episode`.
    """
    from gato_gym.episodes.episode import Episode

    group = _group(file, index)
    if FRAMES in group:
        depth = _member(group, OBSERVATIONS, virtual=True).shape[1]
        observations: Any = stacks_of(_read(group, FRAMES), depth)
    else:
        observations = _read(group, OBSERVATIONS)
    infos: dict[bytes, Any] = {}
    if b"infos" in group:
        infos_group = _member(group, b"infos")
        names = [name for name in (EXECUTED, DISTRIBUTION) if name in infos_group]
        infos = {name: _read(infos_group, name) for name in names}
    info = bytes(_read_attribute(group, INFO)) if h5a.exists(group, INFO) else b"{}"
    return Episode(
        task=task,
        observations=observations,
        actions=_read(group, b"actions"),
        rewards=_read(group, b"rewards").astype(np.float32, copy=False),
        terminations=_read(group, b"terminations").astype(np.bool_, copy=False),
        truncations=_read(group, b"truncations").astype(np.bool_, copy=False),
        seed=int(_read_attribute(group, b"seed")) if h5a.exists(group, b"seed") else None,
        info=parse_json(info, f"info of episode {index}"),
        executed=infos.get(EXECUTED),
        distribution=infos.get(DISTRIBUTION),
    )


def copy_episode(source: h5py.File, index: int, file: h5py.File, new_index: int) -> None:
    """Copy episode ``index`` of ``source`` to ``file`` as number ``new_index``."""
    check_episode(source, index)
    h5o.copy(source.id, group_name(index), file.id, group_name(new_index))
    group = h5g.open(file.id, group_name(new_index))
    if FRAMES in group:  # stacks name their frames by the episode's number
        shape = _member(group, OBSERVATIONS, virtual=True).shape
        group.unlink(OBSERVATIONS)
        _link_stacks(file, new_index, shape)
    h5a.open(group, b"id").write(np.asarray(np.int64(new_index)))


@_damage_named
def count_steps(file: h5py.File, index: int) -> int:
    """T of episode ``index``."""
    return int(_read_attribute(_group(file, index), STEPS))


@_damage_named
def read_rewards(file: h5py.File, index: int) -> NDArray[Any]:
    """Rewards ``[T]`` of episode ``index``, without the rest of it."""
    rewards = _read(_group(file, index), b"rewards")
    if not isinstance(rewards, np.ndarray) or rewards.ndim != 1 or rewards.dtype.kind not in "fiub":
        raise ValueError("rewards are no vector of numbers")
    return rewards


@_damage_named
def check_episode(file: h5py.File, index: int) -> None:
    """Refuse an episode whose numbers are in other files, or would take far more memory there.

    Raises:
        ValueError: It has a link, external storage, a virtual array that is no stack of frames, or
            an array that claims far more than is stored.
    """
    group = _group(file, index)
    _check_members(group, stacked=FRAMES in group)


def drop_unfinished(file: h5py.File) -> None:
    """Remove an episode of which only a part was written, as on Ctrl-C."""
    for name in list(file.id):
        if not h5a.exists(h5g.open(file.id, name), STEPS):
            file.id.unlink(name)


def _check_members(group: Any, depth: int = 0, *, stacked: bool = False) -> None:
    _check_depth(depth)
    for name in group:
        virtual = stacked and name == OBSERVATIONS
        item = _member(group, name, virtual=virtual)
        if isinstance(item, h5g.GroupID):
            _check_members(item, depth + 1)
        elif not virtual:
            _check_size(item, name)


def _group(file: h5py.File, index: int) -> Any:
    return _member(h5g.open(file.id, b"/"), group_name(index))


def _member(parent: Any, name: bytes, *, virtual: bool = False) -> Any:
    """Open what lies in a group; a virtual array only where it is not read."""
    foreign = "a link" if parent.links.get_info(name).type != h5l.TYPE_HARD else ""
    item = None if foreign else h5o.open(parent, name)
    if isinstance(item, h5d.DatasetID):
        properties = item.get_create_plist()
        if properties.get_external_count():
            foreign = "stored in another file"
        elif properties.get_layout() == h5d.VIRTUAL and not virtual:
            foreign = "a virtual array"
    if foreign:
        where = (h5i.get_name(parent) or b"?").decode(errors="replace")
        raise ValueError(
            f"{name.decode(errors='replace')!r} in {where} is {foreign}, expected its numbers in "
            "this file: other files are not read; take a copy that holds all of them"
        )
    return item


def _bytes_of(part: Any) -> int:
    if isinstance(part, dict):
        part = tuple(part.values())
    if isinstance(part, tuple):
        return sum(map(_bytes_of, part))
    if isinstance(part, list) and _has_no_fixed_size(part):
        return sum(map(len, _json_of(part)))
    return 0 if part is None else int(np.asarray(part).nbytes)


def _write(parent: Any, name: bytes, part: Any) -> None:
    """Write an array, a list of text, or a nested dict or tuple of them."""
    is_empty = isinstance(part, tuple) and not part
    if isinstance(part, tuple):
        part = {f"{TUPLE_INDEX}{i}": sub for i, sub in enumerate(part)}
    if isinstance(part, dict):
        group = h5g.create(parent, name)
        if is_empty:
            _write_attribute(group, TUPLE, np.True_)
        for key, sub in part.items():
            _write(group, _quoted(str(key)), sub)
        return
    is_json = isinstance(part, list) and _has_no_fixed_size(part)
    if is_json:
        part = _json_of(part)
    array = np.asarray(part)
    if array.dtype.kind in "UO":
        array = np.asarray([str(text).encode() for text in part])
    array = np.ascontiguousarray(array)
    layout = _layout(array.nbytes <= COMPACT_BYTES)
    space = h5s.create_simple(array.shape)
    dataset = h5d.create(parent, name, _h5_type(array.dtype), space, layout)
    if is_json:
        _write_attribute(dataset, MEMBERS, np.True_)
    if array.size:
        dataset.write(h5s.ALL, h5s.ALL, array)


def _quoted(key: str) -> bytes:
    """A key as the name of an HDF5 object, in which "/" parts groups and "." is the group."""
    if key in ("", "."):
        return b"%2E" if key else b"%"
    return key.replace("%", "%25").replace("/", "%2F").encode()


def _unquoted(name: bytes) -> str:
    key = "" if name == b"%" else name.decode()
    return key.replace("%2E", ".").replace("%2F", "/").replace("%25", "%")


def _has_no_fixed_size(members: list[Any]) -> bool:
    """Whether members are nested, or arrays of several shapes."""
    nested = any(isinstance(member, (tuple, dict)) for member in members)
    return nested or len({np.shape(member) for member in members}) > 1


def _json_of(members: list[Any]) -> list[str]:
    return [json.dumps(_to_json(member)) for member in members]


def _to_json(member: Any) -> Any:
    """A member of a space as JSON values that tell their types."""
    if isinstance(member, spaces.GraphInstance):
        return {"graph": [_to_json(part) for part in member]}
    if isinstance(member, tuple):
        return {"tuple": [_to_json(part) for part in member]}
    if isinstance(member, dict):
        return {"dict": [[key, _to_json(part)] for key, part in member.items()]}
    if isinstance(member, (np.ndarray, np.number, np.bool_)):
        return {"array": member.tolist(), "dtype": member.dtype.str, "shape": member.shape}
    return member


def _from_json(value: Any) -> Any:
    """The member that :func:`_to_json` wrote."""
    if not isinstance(value, dict):
        return value
    if "array" in value:
        dtype = np.dtype(value["dtype"])
        if dtype.kind not in "biuf":
            raise ValueError(f"a member has dtype {dtype}, expected numbers")
        return np.array(value["array"], dtype).reshape(value["shape"])[()]
    if "dict" in value:
        return {key: _from_json(part) for key, part in value["dict"]}
    ((kind, parts),) = value.items()
    members = [_from_json(part) for part in parts]
    return spaces.GraphInstance(*members) if kind == "graph" else tuple(members)


def _frames(observations: Any) -> NDArray[np.uint8] | None:
    """Frames of observations that are overlapping stacks of images, else None."""
    if not isinstance(observations, np.ndarray) or observations.dtype != np.uint8:
        return None
    return frames_of(observations) if observations.ndim in (4, 5) else None


def _write_frames(group: Any, frames: NDArray[np.uint8]) -> None:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((min(FRAMES_IN_CHUNK, len(frames)), *frames.shape[1:]))
    properties.set_deflate(DEFLATE)
    properties.set_obj_track_times(False)
    space = h5s.create_simple(frames.shape)
    dataset = h5d.create(group, FRAMES, _h5_type(frames.dtype), space, properties)
    dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(frames))


def _link_stacks(file: h5py.File, index: int, shape: tuple[int, ...]) -> None:
    """Make ``observations [T + 1, S, ...]`` of an episode from its ``frames [T + S, ...]``.

    Each stack has its own mapping. One mapping for each place in the stack would be four instead of
    T + 1, but reading would take 50 ms a step instead of a sixth of a millisecond.
    """
    (length, depth), frame = shape[:2], shape[2:]
    stacks, frames = h5s.create_simple(shape), h5s.create_simple((length + depth - 1, *frame))
    properties = h5p.create(h5p.DATASET_CREATE)
    source, rest = b"/" + group_name(index) + b"/" + FRAMES, (0,) * len(frame)
    for step in range(length):
        stacks.select_hyperslab((step, 0, *rest), (1, depth, *frame))
        frames.select_hyperslab((step, *rest), (depth, *frame))
        properties.set_virtual(stacks, b".", source, frames)
    group = h5g.open(file.id, group_name(index))
    h5d.create(group, OBSERVATIONS, _h5_type(np.dtype(np.uint8)), stacks, properties)


def _read(parent: Any, name: bytes, depth: int = 0) -> Any:
    item = _member(parent, name)
    if isinstance(item, h5g.GroupID):
        _check_depth(depth)
        if h5a.exists(item, TUPLE):
            return ()
        parts = {_unquoted(key): _read(item, key, depth + 1) for key in item}
        if parts and all(key.startswith(TUPLE_INDEX) for key in parts):
            return tuple(parts[f"{TUPLE_INDEX}{i}"] for i in range(len(parts)))
        return dict(sorted(parts.items()))
    _check_size(item, name)
    array: NDArray[Any] = np.empty(item.shape, item.dtype)
    if array.size:
        item.read(h5s.ALL, h5s.ALL, array)
    if array.dtype.kind in "SO":
        texts = [text.decode() for text in array.tolist()]
        is_json = h5a.exists(item, MEMBERS)
        return [_from_json(parse_json(text, "a member")) for text in texts] if is_json else texts
    return array


def _check_depth(depth: int) -> None:
    if depth >= DEEPEST:  # a group can hold itself
        raise ValueError(f"groups lie more than {DEEPEST} deep")


def _check_size(item: Any, name: bytes) -> None:
    """Refuse an array that claims far more than its file holds."""
    size, stored = math.prod(item.shape) * item.dtype.itemsize, item.get_storage_size()
    if size > min(LARGEST_ARRAY, COMPACT_BYTES + DEFLATE_RATIO * stored):
        raise ValueError(
            f"{name.decode()} of shape {item.shape} would take {size} bytes and is stored in "
            f"{stored}"
        )


@functools.lru_cache(maxsize=64)
def _h5_type(dtype: np.dtype[Any]) -> Any:
    return h5t.py_create(dtype, logical=True)


@functools.cache
def _layout(compact: bool) -> Any:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.COMPACT if compact else h5d.CONTIGUOUS)
    properties.set_obj_track_times(False)
    return properties


def _write_attribute(group: Any, name: bytes, value: np.generic) -> None:
    array = np.asarray(value)
    h5a.create(group, name, _h5_type(array.dtype), h5s.create(h5s.SCALAR)).write(array)


def _read_attribute(group: Any, name: bytes) -> Any:
    attribute = h5a.open(group, name)
    array: NDArray[Any] = np.empty(attribute.shape, attribute.dtype)
    attribute.read(array)
    value = array[()]
    return value.encode() if isinstance(value, str) else value
