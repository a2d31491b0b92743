"""Arrays, texts and nested dicts and tuples of them in an open HDF5 file.

* :func:`write`, :func:`read` -- such a value.
* :func:`bytes_of` -- room that one takes.
* :func:`write_attribute`, :func:`read_attribute` -- a number or a text beside one.
* :func:`member` -- what lies in a group of the file itself.
* :func:`h5_type` -- the type of a dtype.
* :func:`check_size`, :func:`check_depth` -- refuse what would take far more memory than it stores.

Members of no fixed size (of Sequence, OneOf and Graph spaces) are JSON texts. A key that contains
"/", as dm_control's do, is stored with "%2F".
"""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import numpy as np
from gymnasium import spaces
from h5py import h5a, h5d, h5g, h5i, h5l, h5o, h5p, h5s, h5t
from numpy.typing import NDArray

from gato_gym.files.bounded_io import parse_json

LARGEST_ARRAY, DEFLATE_RATIO, DEEPEST = 4 * 2**30, 1032, 32
"""Bytes of the largest array of an episode that is read, how many bytes one of a compressed array
stands for at most, and how many groups may be in one another."""

TUPLE_INDEX = "_index_"
TUPLE, MEMBERS = b"tuple", b"members"
"""Attributes: of the group of an empty tuple, and of texts that are members as JSON."""

COMPACT_BYTES = 48_000
"""Largest array in an object's header, whose limit is 64 KiB."""


def member(parent: Any, name: bytes, *, virtual: bool = False) -> Any:
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


def bytes_of(part: Any) -> int:
    """Bytes of the arrays and texts of a value; None has none."""
    if isinstance(part, dict):
        part = tuple(part.values())
    if isinstance(part, tuple):
        return sum(map(bytes_of, part))
    if isinstance(part, list) and _has_no_fixed_size(part):
        return sum(map(len, _json_of(part)))
    return 0 if part is None else int(np.asarray(part).nbytes)


def write(parent: Any, name: bytes, part: Any) -> None:
    """Write an array, a list of text, or a nested dict or tuple of them."""
    is_empty = isinstance(part, tuple) and not part
    if isinstance(part, tuple):
        part = {f"{TUPLE_INDEX}{i}": sub for i, sub in enumerate(part)}
    if isinstance(part, dict):
        group = h5g.create(parent, name)
        if is_empty:
            write_attribute(group, TUPLE, np.True_)
        for key, sub in part.items():
            write(group, _quoted(str(key)), sub)
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
    dataset = h5d.create(parent, name, h5_type(array.dtype), space, layout)
    if is_json:
        write_attribute(dataset, MEMBERS, np.True_)
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
    """A member of a space as JSON values that name their types."""
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


def read(parent: Any, name: bytes, depth: int = 0) -> Any:
    """What :func:`write` wrote: arrays, lists of text, and dicts and tuples of them.

    Raises:
        ValueError: It lies in another file, is too large, or too deep in groups.
    """
    item = member(parent, name)
    if isinstance(item, h5g.GroupID):
        check_depth(depth)
        if h5a.exists(item, TUPLE):
            return ()
        parts = {_unquoted(key): read(item, key, depth + 1) for key in item}
        if parts and all(key.startswith(TUPLE_INDEX) for key in parts):
            return tuple(parts[f"{TUPLE_INDEX}{i}"] for i in range(len(parts)))
        return dict(sorted(parts.items()))
    check_size(item, name)
    array: NDArray[Any] = np.empty(item.shape, item.dtype)
    if array.size:
        item.read(h5s.ALL, h5s.ALL, array)
    if array.dtype.kind in "SO":
        texts = [text.decode() for text in array.tolist()]
        is_json = h5a.exists(item, MEMBERS)
        return [_from_json(parse_json(text, "a member")) for text in texts] if is_json else texts
    return array


def check_depth(depth: int) -> None:
    """Refuse groups more than ``DEEPEST`` deep in one another."""
    if depth >= DEEPEST:  # a group can hold itself
        raise ValueError(f"groups lie more than {DEEPEST} deep")


def check_size(item: Any, name: bytes) -> None:
    """Refuse an array that claims far more than its file holds."""
    size, stored = math.prod(item.shape) * item.dtype.itemsize, item.get_storage_size()
    if size > min(LARGEST_ARRAY, COMPACT_BYTES + DEFLATE_RATIO * stored):
        raise ValueError(
            f"{name.decode()} of shape {item.shape} would take {size} bytes and is stored in "
            f"{stored}"
        )


@functools.lru_cache(maxsize=64)
def h5_type(dtype: np.dtype[Any]) -> Any:
    """The HDF5 type of a dtype."""
    return h5t.py_create(dtype, logical=True)


@functools.cache
def _layout(compact: bool) -> Any:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.COMPACT if compact else h5d.CONTIGUOUS)
    properties.set_obj_track_times(False)
    return properties


def write_attribute(group: Any, name: bytes, value: np.generic) -> None:
    """Write a number or a text beside a group or an array."""
    array = np.asarray(value)
    h5a.create(group, name, h5_type(array.dtype), h5s.create(h5s.SCALAR)).write(array)


def read_attribute(group: Any, name: bytes) -> Any:
    """The number that :func:`write_attribute` wrote; of a text, its bytes."""
    attribute = h5a.open(group, name)
    array: NDArray[Any] = np.empty(attribute.shape, attribute.dtype)
    attribute.read(array)
    value = array[()]
    return value.encode() if isinstance(value, str) else value
