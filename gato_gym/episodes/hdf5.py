"""Episodes in HDF5 files of Minari's layout, one group an episode.

* :func:`append_episode`, :func:`read_episode` -- one episode, to and from an open file.
* :func:`copy_episode` -- from one open file to another, without decoding.
* :func:`count_steps`, :func:`read_rewards` -- the length and the rewards of an episode in a file.
* :func:`check_episode` -- refuses one whose numbers are in other files, or take far more memory.
* :func:`drop_unfinished` -- removes an episode of which only a part was written.

Minari reads these files as its own. Minari itself writes a resizable, chunked array for every
field, which takes four times the space and three times the time for episodes of some tens of steps.

Minari reads neither members of no fixed size nor keys that contain "/", see
:mod:`gato_gym.episodes.hdf5_values`.

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
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5o, h5p, h5s
from numpy.typing import NDArray

from gato_gym.episodes.frames import frames_of, stacks_of
from gato_gym.episodes.hdf5_values import (
    bytes_of,
    check_depth,
    check_size,
    h5_type,
    member,
    read,
    read_attribute,
    write,
    write_attribute,
)
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

SPARE_BYTES = 8 * 2**20
"""Room that is left on the disk: a file in which a write has failed cannot be read again."""

STEPS = b"total_steps"
"""Attribute of an episode, written last."""


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
    needed = bytes_of(parts) + SPARE_BYTES
    if (free := shutil.disk_usage(Path(file.filename).parent).free) < needed:
        raise OSError(
            errno.ENOSPC, f"{free} bytes of room, expected {needed} for an episode: make room"
        )
    group = h5g.create(file.id, group_name(index))
    write_attribute(group, b"id", np.int64(index))
    if episode.seed is not None:
        write_attribute(group, b"seed", np.int64(episode.seed))
    write_attribute(group, INFO, np.bytes_(json.dumps(episode.info).encode()))
    if frames is None:
        write(group, OBSERVATIONS, episode.observations)
    else:
        _write_frames(group, frames)
        _link_stacks(file, index, episode.observations.shape)
    write(group, b"actions", episode.actions)
    write(group, b"rewards", episode.rewards)
    write(group, b"terminations", episode.terminations)
    write(group, b"truncations", episode.truncations)
    infos = {EXECUTED: episode.executed, DISTRIBUTION: episode.distribution}
    if any(part is not None for part in infos.values()):
        infos_group = h5g.create(group, b"infos")
        for name, part in infos.items():
            if part is not None:
                write(infos_group, name, part)
    write_attribute(group, STEPS, np.int64(episode.length))
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
        depth = member(group, OBSERVATIONS, virtual=True).shape[1]
        observations: Any = stacks_of(read(group, FRAMES), depth)
    else:
        observations = read(group, OBSERVATIONS)
    infos: dict[bytes, Any] = {}
    if b"infos" in group:
        infos_group = member(group, b"infos")
        names = [name for name in (EXECUTED, DISTRIBUTION) if name in infos_group]
        infos = {name: read(infos_group, name) for name in names}
    info = bytes(read_attribute(group, INFO)) if h5a.exists(group, INFO) else b"{}"
    return Episode(
        task=task,
        observations=observations,
        actions=read(group, b"actions"),
        rewards=read(group, b"rewards").astype(np.float32, copy=False),
        terminations=read(group, b"terminations").astype(np.bool_, copy=False),
        truncations=read(group, b"truncations").astype(np.bool_, copy=False),
        seed=int(read_attribute(group, b"seed")) if h5a.exists(group, b"seed") else None,
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
        shape = member(group, OBSERVATIONS, virtual=True).shape
        group.unlink(OBSERVATIONS)
        _link_stacks(file, new_index, shape)
    h5a.open(group, b"id").write(np.asarray(np.int64(new_index)))


@_damage_named
def count_steps(file: h5py.File, index: int) -> int:
    """T of episode ``index``."""
    return int(read_attribute(_group(file, index), STEPS))


@_damage_named
def read_rewards(file: h5py.File, index: int) -> NDArray[Any]:
    """Rewards ``[T]`` of episode ``index``, without the rest of it."""
    rewards = read(_group(file, index), b"rewards")
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
    check_depth(depth)
    for name in group:
        virtual = stacked and name == OBSERVATIONS
        item = member(group, name, virtual=virtual)
        if isinstance(item, h5g.GroupID):
            _check_members(item, depth + 1)
        elif not virtual:
            check_size(item, name)


def _group(file: h5py.File, index: int) -> Any:
    return member(h5g.open(file.id, b"/"), group_name(index))


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
    dataset = h5d.create(group, FRAMES, h5_type(frames.dtype), space, properties)
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
    h5d.create(group, OBSERVATIONS, h5_type(np.dtype(np.uint8)), stacks, properties)
