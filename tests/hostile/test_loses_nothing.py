"""What was recorded is kept, whatever ends the recording; what is replaced is there until it is."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from environments import Balance
from hostile import DATASET, contents, episode, write_dataset

from gato_gym import read_minari, write_minari
from gato_gym.__main__ import main
from gato_gym.episodes import hdf5
from gato_gym.episodes.minari_datasets import (
    find_minari,
    minari_metadata,
    minari_root,
)
from gato_gym.files import atomic_io
from gato_gym.files.atomic_io import appearing, surviving
from policies.collection.record import record_episodes

Usage = namedtuple("Usage", "total used free")


class Killed(BaseException):
    """The process is gone: nothing after it runs."""


class Failing(Balance):
    """Balances the pole until the fourth episode."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.calls = error, 0

    def predict(self, *arguments: Any, **more: Any) -> tuple[Any, Any]:
        self.calls += 1
        if self.calls > 3 * 5 + 2:
            raise self.error
        return super().predict(*arguments, **more)


def in_the_middle(error: BaseException) -> Callable[..., None]:
    """Writing an array, which fails in the fourth episode, after some of it is in the file."""
    write, calls = hdf5.write, 0

    def writing(parent: Any, name: bytes, part: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 3 * 5 + 2:
            raise error
        write(parent, name, part)

    return writing


def full_disk(calls: int) -> Callable[[object], Usage]:
    left = calls

    def usage(_: object) -> Usage:
        nonlocal left
        left -= 1
        return Usage(2**40, 0, 2**40 if left >= 0 else 2**20)

    return usage


def fail(how: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, type[BaseException]]:
    """The policy to record, the fourth of whose episodes ends with an error; and the error."""
    if how == "Ctrl-C while it plays":
        return Failing(KeyboardInterrupt()), KeyboardInterrupt
    if how == "policy":
        return Failing(ZeroDivisionError("a fault of the policy")), ZeroDivisionError
    if how == "Ctrl-C while it writes":
        monkeypatch.setattr(hdf5, "write", in_the_middle(KeyboardInterrupt()))
        return Balance(), KeyboardInterrupt
    if how == "disk while it writes":
        monkeypatch.setattr(hdf5, "write", in_the_middle(OSError(errno.ENOSPC, "full")))
        return Balance(), OSError
    monkeypatch.setattr(shutil, "disk_usage", full_disk(3))
    return Balance(), OSError


FAILURES = [
    "Ctrl-C while it plays", "Ctrl-C while it writes", "policy", "disk while it writes", "disk",
]  # fmt: skip


@pytest.fixture
def env() -> Any:
    with gym.make("CartPole-v1", max_episode_steps=5) as env:
        yield env


@pytest.mark.parametrize("how", FAILURES)
def test_episodes_before_a_failure_are_kept(
    tmp_path: Path, env: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        policy, error = fail(how, patched)
        with pytest.raises(error) as failure:
            record_episodes(env, policy, 10, DATASET, root=tmp_path)
    assert failure.value.__notes__ == ["3 episodes are kept as dataset 'my/cart-v0'"]
    kept = list(read_minari(DATASET, root=tmp_path))
    record_episodes(env, Balance(), 3, "my/straight-v0", root=tmp_path)
    for one, other in zip(kept, read_minari("my/straight-v0", root=tmp_path), strict=True):
        assert one.seed == other.seed
        assert np.array_equal(one.observations, other.observations)
        assert np.array_equal(one.actions, other.actions)
    metadata = minari_metadata(DATASET, root=tmp_path)
    assert metadata["total_episodes"] == 3
    assert metadata["total_steps"] == 15
    assert metadata["expert_return"] == 5.0
    assert metadata["dataset_id"] == DATASET
    with minari_root(tmp_path):
        assert len(list(minari.load_dataset(DATASET).iterate_episodes())) == 3
    assert {path.name for path in (tmp_path / "my").iterdir()} == {"cart-v0", "straight-v0"}
    assert {path.name for path in (tmp_path / DATASET).rglob("*")} == {
        "data", "main_data.hdf5", "metadata.json",
    }  # fmt: skip


@pytest.mark.parametrize("how", FAILURES)
def test_a_dataset_that_was_to_be_replaced_is_kept_too(
    tmp_path: Path, env: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path)
    write_dataset(tmp_path, dataset="my/cart-v1")
    before = contents(tmp_path)
    with monkeypatch.context() as patched:
        policy, error = fail(how, patched)
        with pytest.raises(error) as failure:
            record_episodes(env, policy, 10, DATASET, root=tmp_path, replace=True)
    assert failure.value.__notes__ == ["3 episodes are kept as dataset 'my/cart-v2'"]
    assert len(list(read_minari("my/cart-v2", root=tmp_path))) == 3
    assert minari_metadata("my/cart-v2", root=tmp_path)["dataset_id"] == "my/cart-v2"
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert {path.name for path in (tmp_path / "my").iterdir()} == {"cart-v0", "cart-v1", "cart-v2"}


@pytest.mark.parametrize("exists", [False, True])
def test_of_no_episode_nothing_is_kept(tmp_path: Path, env: Any, exists: bool) -> None:
    if exists:
        write_dataset(tmp_path)
    before = contents(tmp_path)
    policy = Failing(KeyboardInterrupt())
    policy.calls = 3 * 5
    with pytest.raises(KeyboardInterrupt):
        record_episodes(env, policy, 10, DATASET, root=tmp_path, replace=True)
    assert contents(tmp_path) == before


def test_half_an_import_is_not_kept(tmp_path: Path, env: Any) -> None:
    """What is written from a file can be written again."""

    def episodes() -> Any:
        yield episode()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_minari(DATASET, episodes(), env=env, root=tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("Ctrl-C while it writes", 130, "3 episodes are kept as dataset 'my/cart-v0'"),
        ("disk", 1, "make room; 3 episodes are kept as dataset 'my/cart-v0'"),
    ],
)
def test_the_command_says_what_is_kept(
    tmp_path: Path, how: str, status: int, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    command = ["record", "CartPole-v1", "--policy", "random", "--dataset", DATASET]
    with monkeypatch.context() as patched:
        fail(how, patched)
        assert main([*command, "--episodes", "9"]) == status
    assert said in capsys.readouterr().err
    assert find_minari(DATASET).total_episodes == 3
    assert main([*command, "--episodes", "4", "--overwrite"]) == 0
    assert find_minari(DATASET).total_episodes == 4


@pytest.mark.parametrize("swaps", [True, False], ids=["one step", "two steps"])
@pytest.mark.parametrize("calls", range(1, 12))
def test_a_kill_while_a_dataset_is_replaced_loses_neither(
    tmp_path: Path, env: Any, calls: int, swaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the disk is, in turn, the one before which the process dies."""
    write_minari(DATASET, [episode(3)], env=env, root=tmp_path)
    left = calls

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            return function(*arguments, **more)

        return call

    with monkeypatch.context() as patched:
        swap = atomic_io._exchanged if swaps else lambda *_: False
        patched.setattr(atomic_io, "_exchanged", dying(swap))
        for name in ("replace", "rmdir", "unlink", "fsync"):
            patched.setattr(os, name, dying(getattr(os, name)))
        try:
            write_minari(DATASET, [episode(4), episode(5)], env=env, root=tmp_path, replace=True)
        except Killed:
            assert left <= 0
    for read in (
        lambda: list(read_minari(DATASET, root=tmp_path)),
        lambda: list(find_minari(tmp_path / DATASET)),
    ):
        assert len(read()) in (1, 2)
    write_minari(DATASET, [episode()] * 3, env=env, root=tmp_path, replace=True)
    assert len(list(read_minari(DATASET, root=tmp_path))) == 3
    assert [path.name for path in (tmp_path / "my").iterdir()] == ["cart-v0"]


def test_where_folders_cannot_be_swapped_the_old_one_is_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    replace = os.replace

    def watched(source: Any, target: Any) -> None:
        replace(source, target)
        seen.append((surviving(tmp_path / "a") / "b").read_text())

    monkeypatch.setattr(atomic_io, "_exchanged", lambda *_: False)
    monkeypatch.setattr(os, "replace", watched)
    for text in ("first", "second"):
        with appearing(tmp_path / "a", own=("b",)) as partial:
            (partial / "b").write_text(text)
    assert seen == ["first", "first", "second"]
    assert contents(tmp_path) == {"a/b": b"second"}


def test_an_episode_is_not_begun_where_it_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 cannot close a file in which a write has failed: it is asked before."""
    with hdf5.open_file(tmp_path / "a.hdf5", "w") as file:
        hdf5.append_episode(file, 0, episode(100))
        needed = 101 * 4 * 4 + 100 * 8 + 100 * 4 + hdf5.SPARE_BYTES
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed - 1))
        with pytest.raises(OSError, match=f"expected {needed} for an episode"):
            hdf5.append_episode(file, 1, episode(100))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed))
        hdf5.append_episode(file, 1, episode(100))
    with hdf5.open_file(tmp_path / "a.hdf5", "r") as file:
        assert [hdf5.count_steps(file, index) for index in range(2)] == [100, 100]
