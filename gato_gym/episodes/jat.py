"""Episodes in the row schema of the JAT dataset (arXiv 2402.09844).

* :func:`episode_of_row` -- one row as an :class:`~gato_gym.episodes.episode.Episode`.
* :class:`RowSpaces` -- the spaces that rows imply, without an environment.
* :func:`import_rows` -- rows to a Minari dataset.
* :func:`read_rows` -- rows of a file, through the package ``datasets``, or streamed from the hub.
* :class:`HubRows` -- a configuration of the hub's dataset by name.

One row is one episode:

====================  ==========================  ============================================
suite                 columns                     become
====================  ==========================  ============================================
Atari                 ``image_observations``,     uint8 ``[4, H, W]``, the newest frame last;
                      ``discrete_actions``        Discrete
BabyAI                ``discrete_observations``,  ``direction``, ``image`` uint8 ``[7, 7, 3]``,
                      ``text_observations``,      ``mission``; Discrete
                      ``discrete_actions``
MuJoCo, Meta-World    ``continuous_observations`` float32 vectors; Box
                      ``continuous_actions``
====================  ==========================  ============================================

with ``rewards`` in each. A row has T observations for T actions: it lacks the observation after the
last action, and whether the episode terminated. The last observation is repeated and the episode
counts as truncated; ``info["last_observation"]`` is "repeated".
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.metadata import check_dataset_id
from gato_gym.episodes.minari_writing import new_minari

GRID, DIRECTIONS = (7, 7, 3), 4
LARGEST_ACTION = 1023
"""Largest action of a Discrete space: there are ids for so many."""
COLUMNS = (
    "image_observations", "discrete_observations", "text_observations", "continuous_observations",
    "discrete_actions", "continuous_actions", "rewards",
)  # fmt: skip
HUB_DATASET = "jat-project/jat-dataset"
Row = Mapping[str, Any]


class RowSpaces:
    """The spaces of rows, in the place of an environment; they grow with each.

    Pass the environment to :func:`import_rows` if they are too small.

    Rows contain neither the number of actions nor a Box's bounds. Discrete is as large as the
    largest action, and a Box spans [-1, 1] or the largest number.

    Args:
        first: The first episode.

    Attributes:
        observation_space, action_space: The spaces of one environment.
        spec: None, because rows do not name an environment.
    """

    spec = None

    def __init__(self, first: Episode) -> None:
        self.observation_space = _observation_space(first.observations)
        self.action_space: gym.Space[Any]
        self._discrete, self._shape = first.actions.dtype.kind == "i", first.actions.shape[1:]
        self._most = 0.0
        self.grow(first)

    def grow(self, episode: Episode) -> None:
        """Make room for an episode's actions."""
        self._most = max(self._most, float(np.abs(episode.actions).max()))
        if self._discrete:
            self.action_space = spaces.Discrete(int(self._most) + 1)
        else:
            bound = max(1.0, self._most)
            self.action_space = spaces.Box(-bound, bound, self._shape, np.float32)


def episode_of_row(row: Row, *, task: str = "") -> Episode:
    """One row as an episode.

    Args:
        row: Columns by name.
        task: Id of the task that the episode is of.

    Raises:
        ValueError: Columns are missing, differ in length, or hold what their kind of number cannot
            be; names them.
    """
    observations, actions = _observations(row), _actions(row)
    rewards = _numbers(row, "rewards", finite=True)
    lengths = {"rewards": len(rewards), "actions": len(actions), **_lengths(observations)}
    if len(set(lengths.values())) != 1 or not len(rewards):
        raise ValueError(f"the row's columns have lengths {lengths}: expected one, 1 or more")
    last = np.zeros(len(rewards), np.bool_)
    last[-1] = True
    return Episode(
        task=task,
        observations=_with_last_twice(observations),
        actions=actions,
        rewards=rewards,
        terminations=np.zeros(len(rewards), np.bool_),
        truncations=last,
        info={"last_observation": "repeated"},
    )


def _column(row: Row, name: str) -> Any:
    if row.get(name) is None:
        raise ValueError(f"the row has columns {sorted(row)}: expected {name!r} among them")
    return row[name]


def _numbers(row: Row, name: str, *, finite: bool) -> NDArray[np.float32]:
    """A column of numbers, none of which is missing; infinite ones only where that is allowed."""
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(_column(row, name), np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are no array of numbers ({error}): expected float32") from error
    wrong = ~np.isfinite(numbers) if finite else np.isnan(numbers)
    if wrong.any():
        place = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"{name} have {numbers[place]} at {place}, expected "
            f"{'finite numbers' if finite else 'numbers'}: a missing one reads as nan"
        )
    return numbers


def _integers(given: Any, name: str, high: int) -> NDArray[np.int64]:
    """Whole numbers from 0 to ``high``: a cast would make 44 of 300, and 0 of 0.7."""
    values = np.asarray(given)
    if values.dtype.kind not in "iuf" or not ((values >= 0) & (values <= high)).all():
        got = f"of dtype {values.dtype}"
        if values.dtype.kind in "iuf":
            got = f"from {values.min()} to {values.max()}"
        raise ValueError(f"{name} are {got}, expected whole numbers from 0 to {high}")
    whole = values.astype(np.int64)
    if (whole != values).any():
        raise ValueError(f"{name} have fractions, expected whole numbers from 0 to {high}")
    return whole


def _observations(row: Row) -> Any:
    if row.get("image_observations") is not None:
        images = row["image_observations"]
        name = "image_observations"
        frames = np.stack([_integers(image, name, 255).astype(np.uint8) for image in images])
        if frames.ndim != 4 or frames.shape[-1] != 4:
            raise ValueError(
                f"image_observations have shape {frames.shape[1:]}: expected [height, width, 4], "
                "four frames as channels"
            )
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    if row.get("discrete_observations") is not None:
        symbols = _integers(row["discrete_observations"], "discrete_observations", 255)
        if symbols.ndim != 2 or symbols.shape[1] != 1 + np.prod(GRID):
            raise ValueError(
                f"discrete_observations have shape {symbols.shape}: expected [T, 148], a direction "
                "and 7 x 7 x 3 symbols"
            )
        texts = _column(row, "text_observations")
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise ValueError(f"text_observations have {wrong[0]!r}: expected texts")
        return {
            "direction": _integers(symbols[:, 0], "directions", DIRECTIONS - 1),
            "image": symbols[:, 1:].reshape(-1, *GRID).astype(np.uint8),
            "mission": list(texts),
        }
    return _numbers(row, "continuous_observations", finite=False)


def _actions(row: Row) -> NDArray[Any]:
    if row.get("discrete_actions") is not None:
        return _integers(row["discrete_actions"], "discrete_actions", LARGEST_ACTION)
    return _numbers(row, "continuous_actions", finite=True)


def _lengths(observations: Any) -> dict[str, int]:
    if isinstance(observations, dict):
        return {name: len(part) for name, part in observations.items()}
    return {"observations": len(observations)}


def _with_last_twice(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {name: _with_last_twice(part) for name, part in observations.items()}
    if isinstance(observations, list):
        return [*observations, observations[-1]]
    return np.concatenate([observations, observations[-1:]])


def _observation_space(observations: Any) -> gym.Space[Any]:
    if isinstance(observations, dict):
        letters = " ,abcdefghijklmnopqrstuvwxyz"
        return spaces.Dict(
            direction=spaces.Discrete(DIRECTIONS),
            image=spaces.Box(0, 255, GRID, np.uint8),
            mission=spaces.Text(512, charset=letters),
        )
    if observations.dtype == np.uint8:
        return spaces.Box(0, 255, observations.shape[1:], np.uint8)
    return spaces.Box(-np.inf, np.inf, observations.shape[1:], np.float32)


def import_rows(
    rows: Iterable[Row],
    dataset_id: str,
    *,
    env: gym.Env[Any, Any] | None = None,
    root: Path | None = None,
    replace: bool = False,
) -> list[float]:
    """Write rows as a Minari dataset.

    Args:
        rows: At least one; taken one by one.
        dataset_id: Id of the new dataset, such as ``jat/halfcheetah-v0``.
        env: Has the spaces and the environment's id; None infers spaces, see :class:`RowSpaces`.
        root: Folder of datasets; None is Minari's own.
        replace: Whether a dataset of this id gives way.

    Returns:
        The return of each episode.

    Raises:
        ValueError: There is no row, one is not of the schema, the environment has other spaces, or
            the dataset exists.
    """
    from gato_gym.episodes import hdf5

    check_dataset_id(dataset_id)
    episodes = (episode_of_row(row, task=dataset_id) for row in rows)
    first = next(episodes, None)
    if first is None:
        raise ValueError("there is no row: expected at least one")
    source: Any = env or RowSpaces(first)
    returns: list[float] = []
    metadata = {"algorithm_name": "expert", "description": f"Rows of JAT's schema: {dataset_id}"}
    with new_minari(dataset_id, env=source, root=root, metadata=metadata, replace=replace) as file:
        for index, episode in enumerate(itertools.chain([first], episodes)):
            if isinstance(source, RowSpaces):
                source.grow(episode)
            _check_member(source, episode, index)
            hdf5.append_episode(file, index, episode)
            returns.append(episode.total_return)
    return returns


def _check_member(env: Any, episode: Episode, number: int) -> None:
    """Refuse an episode whose first step is of other spaces."""
    observed = episode.observations
    first = {k: v[0] for k, v in observed.items()} if isinstance(observed, dict) else observed[0]
    recorded = _kinds(first)
    expected = _kinds(env.observation_space.sample())
    action, choices = np.shape(episode.actions[0]), env.action_space
    if recorded != expected or action != tuple(env.action_space.shape):
        raise ValueError(
            f"row {number} has observations {recorded} and actions of shape {action}: expected "
            f"{expected} and {tuple(env.action_space.shape)}; name the environment that it was "
            "recorded in"
        )
    if isinstance(choices, spaces.Discrete) and not all(map(choices.contains, episode.actions)):
        raise ValueError(
            f"row {number} has actions from {episode.actions.min()} to {episode.actions.max()}: "
            f"expected members of {choices}"
        )


def _kinds(member: Any) -> Any:
    if isinstance(member, dict):
        return {key: _kinds(member[key]) for key in sorted(member)}
    return "text" if isinstance(member, str) else list(np.shape(member))


@dataclass(frozen=True)
class HubRows:
    """A configuration of ``jat-project/jat-dataset``, or its first episodes.

    Attributes:
        configuration: Such as ``mujoco-halfcheetah``.
        episodes: How many, the first ones; None for all.

    Example:
        >>> HubRows.parse("jat:mujoco-halfcheetah:500")
        HubRows(configuration='mujoco-halfcheetah', episodes=500)
        >>> HubRows.parse("jat-project/jat-dataset:atari-pong").dataset_id
        'jat/atari-pong-v0'
    """

    configuration: str
    episodes: int | None = None

    @classmethod
    def parse(cls, name: str) -> HubRows | None:
        """What a name stands for: ``jat:CONFIGURATION`` or ``jat:CONFIGURATION:EPISODES``."""
        match = re.fullmatch(r"(?:jat|jat-project/jat-dataset):([\w-]+)(?::([1-9]\d*))?", name)
        if match is None:
            return None
        return cls(match[1], int(match[2]) if match[2] else None)

    @property
    def dataset_id(self) -> str:
        """The Minari dataset that they become."""
        part = "" if self.episodes is None else f"-first-{self.episodes}"
        return f"jat/{self.configuration}{part}-v0"

    def rows(self, split: str = "train") -> Iterator[Row]:
        """The rows, each fetched when it is asked for; files of others are not.

        Raises:
            ValueError: There is no such configuration, or an image names a file.
        """
        import datasets

        rows = datasets.load_dataset(HUB_DATASET, self.configuration, split=split, streaming=True)
        features = rows.features or {}
        if "image_observations" in features:
            undecoded = datasets.Sequence(datasets.Image(decode=False))
            rows = rows.cast_column("image_observations", undecoded)
        for row in itertools.islice(rows, self.episodes):
            kept = {name: row[name] for name in COLUMNS if row.get(name) is not None}
            if "image_observations" in kept:
                kept["image_observations"] = [*map(_decoded, kept["image_observations"])]
            yield kept


def _decoded(image: Mapping[str, Any]) -> NDArray[np.uint8]:
    """An image's pixels from its content: the path beside it is not read."""
    from PIL import Image

    if image.get("bytes") is None:
        raise ValueError(
            "'image_observations' name files, expected their content: other files are not read"
        )
    with Image.open(io.BytesIO(image["bytes"]), formats=("PNG",)) as opened:
        return np.array(opened, np.uint8)


def read_rows(source: str | Path, *, split: str = "train") -> Any:
    """Rows of a parquet or JSON-lines file, of a folder that ``datasets`` saved, or of the hub.

    Args:
        source: A path; or a name of :class:`HubRows`, such as ``jat:mujoco-halfcheetah:500``.
        split: Split of a folder or of the hub's dataset.

    Returns:
        A ``datasets.Dataset``, or rows of the hub that are fetched when they are asked for.

    Raises:
        ImportError: The package ``datasets`` is not installed.
        FileNotFoundError: There is no such file.
        ValueError: A row names files instead of holding their content.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "rows are read by the package 'datasets': run pip install 'gato-gym[jat]'"
        ) from error
    name, path = str(source), Path(source)
    if (hub := HubRows.parse(name)) is not None:
        return hub.rows(split)
    if path.is_dir():
        dataset = datasets.load_from_disk(name)
        parts = isinstance(dataset, datasets.DatasetDict)
        return _self_contained(dataset[split] if parts else dataset)
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {name!r}: expected .parquet, .jsonl, a folder that datasets saved, or "
            "jat:CONFIGURATION"
        )
    kind = "parquet" if path.suffix == ".parquet" else "json"
    return _self_contained(datasets.load_dataset(kind, data_files=name, split="train"))


def _self_contained(rows: Any) -> Any:
    """The columns of the schema, if they name no file: ``datasets`` opens any path or address."""
    import pyarrow
    import pyarrow.compute

    rows = rows.select_columns([name for name in rows.column_names if name in COLUMNS])
    for name in rows.column_names:
        column = rows.data.column(name)
        while pyarrow.types.is_list(column.type) or pyarrow.types.is_large_list(column.type):
            column = pyarrow.compute.list_flatten(column)
        if not pyarrow.types.is_struct(column.type):
            continue
        content = pyarrow.compute.struct_field(column, "bytes")
        if content.null_count > column.null_count:
            raise ValueError(
                f"column {name!r} names files, expected their content: other files are not read; "
                "save the rows with the images in them"
            )
    return rows
