"""Videos of a run's episodes: ``--record``.

* :class:`Clip` -- one of them.
* :func:`film` -- makes those that are missing.
* :func:`read_clips` -- what a folder holds.
* :func:`check_filming` -- whether videos can be made here.

Which episodes are filmed is decided before play: the first ones of each task. They are played once
more for it, by the code and with the random numbers of the run, so that filming cannot change what
is scored; whether they went as recorded is checked and reported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.store.clips import FOLDER, INDEX, Clip, read_clips
from benchmarks.store.run_store import Record
from gato_gym.files.atomic_io import write_json
from policies.processes import JobPool, WorkerFailure
from policies.rollout.outcomes import EpisodeKey, EpisodeResult

QUALITY = 27
"""libx264's rate factor of these videos: half the size of what benchmarks.watch writes."""


def check_filming(count: int) -> None:
    """Refuse a number of videos that makes no sense, and filming without what it takes.

    Raises:
        BenchmarkError: The number is negative, or a package is missing.
    """
    if count < 0:
        raise BenchmarkError(f"--record is {count}, expected 0 or more: pass --record 1")
    if not count:
        return
    from gato_gym.tasks.task import MissingPackageError, need

    try:
        for package in ("av", "PIL"):
            need(package, "watch")
    except MissingPackageError as error:
        raise BenchmarkError(f"--record: {error}") from error


def film(record: Record, choice: PolicyChoice, count: int, *, workers: int) -> Iterator[Clip | str]:
    """Film the first episodes of each task that are played and not filmed yet.

    Args:
        record: The run's record.
        choice: Who plays.
        count: How many of each task.
        workers: Processes.

    Yields:
        Each video when it is there, or why there is none. ``videos.json`` is kept up to date.
    """
    clips = {(clip.task, clip.episode): clip for clip in read_clips(record.folder)}
    protocol = record.header.protocol
    missing = [
        key
        for task in protocol.tasks
        for key in protocol.episodes_of(task)[:count]
        if key in record.results and (task, key.index) not in clips
    ]
    if not missing:
        return
    failed = set()
    # Processes of their own: how MuJoCo renders is decided when it is imported.
    try:
        with JobPool(_filmer, choice, record.folder, count=min(workers, len(missing))) as pool:
            for key, result in pool.run(missing):
                if isinstance(result, WorkerFailure):  # a renderer, an environment, the disk
                    if key.task not in failed:
                        yield f"no video of {key.task}: {result.message}"
                    failed.add(key.task)
                    continue
                clip = clips[key.task, key.index] = _clip(result, record.results[key])
                ordered = [clips[place].to_json() for place in sorted(clips)]
                write_json(record.folder / INDEX, {"clips": ordered})
                yield clip
    finally:
        for partial_file in record.folder.glob(f"{FOLDER}/.*.partial.mp4"):
            partial_file.unlink(missing_ok=True)


def _clip(filmed: EpisodeResult, recorded: EpisodeResult) -> Clip:
    def outcome(result: EpisodeResult) -> tuple[float, int, bool | None]:
        return result.total_return, result.length, result.success

    key = filmed.key
    return Clip(
        key.task, key.index, key.seed, _file(key), *outcome(filmed),
        same=outcome(filmed) == outcome(recorded),
    )  # fmt: skip


def _file(key: EpisodeKey) -> str:
    return f"{FOLDER}/{key.task}-episode{key.index}.mp4"


def _filmer(choice: PolicyChoice, folder: Path) -> Callable[[EpisodeKey], EpisodeResult]:
    """What films in a process, with a renderer chosen."""
    from benchmarks.video.screens import has_display

    if not has_display():
        os.environ.setdefault("MUJOCO_GL", "egl")
    return partial(_film, choice, folder)


def _film(choice: PolicyChoice, folder: Path, key: EpisodeKey) -> EpisodeResult:
    """Play an episode into a file; what it came to. There is no file of half an episode."""
    from benchmarks.video.screens import Video
    from benchmarks.video.viewer import perform
    from gato_gym.tasks import get_task

    path = folder / _file(key)
    open_screen = partial(Video, path, quality=QUALITY)
    try:
        (result,) = perform(
            get_task(key.task), choice, [key], open_screen, sparse=draws_in_software(key.task)
        )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return result


_RENDERER = """
import mujoco
from OpenGL import GL
context = mujoco.GLContext(16, 16)
context.make_current()
print(GL.glGetString(GL.GL_RENDERER))
"""


@cache
def draws_in_software(task: str) -> bool:
    """Whether a task's frames come from MuJoCo without a graphics card, and take long."""
    if not task.startswith(("dm_control-", "metaworld-", "mujoco-")):
        return False
    # In a process of its own: a context that is freed takes those after it along.
    with suppress(subprocess.TimeoutExpired):
        renderer = subprocess.run(
            [sys.executable, "-c", _RENDERER], capture_output=True, check=False, timeout=60
        )
        return any(name in renderer.stdout for name in (b"llvmpipe", b"softpipe", b"swrast"))
    return True
