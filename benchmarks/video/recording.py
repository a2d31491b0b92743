"""Videos of a run's episodes: ``--record``.

* :class:`Clip` -- one of them.
* :func:`film` -- makes those that are missing.
* :func:`read_clips` -- what a folder holds.
* :func:`check_filming` -- whether videos can be made here.

Which episodes are filmed is decided before play: the first ones of each task. They are played once
more for it, by the code and with the random numbers of the run, so that filming cannot change what
is scored; whether they went as recorded is checked and told.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.store.clips import FOLDER, INDEX, Clip, read_clips
from benchmarks.store.run_store import Record
from gato_gym.atomic_io import write_json
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
        record: Of the run.
        choice: Who plays.
        count: How many of each task.
        workers: Processes.

    Yields:
        Each video when it is there, or why there is none. ``videos.json`` is kept up to date.
    """
    clips = {(clip.task, clip.episode): clip for clip in read_clips(record.folder)}
    protocol = record.header.protocol
    wanted = [
        key
        for task in protocol.tasks
        for key in protocol.episodes_of(task)[:count]
        if key in record.results and (task, key.index) not in clips
    ]
    if not wanted:
        return
    failed = set()
    with _processes(min(workers, len(wanted)), record.folder) as executor:
        jobs = {executor.submit(_film, choice, key, record.folder): key for key in wanted}
        for job in as_completed(jobs):
            key = jobs[job]
            try:
                clip = _clip(job.result(), record.results[key])
            except Exception as error:  # of a renderer, an environment, the disk; a killed process
                if key.task not in failed:
                    yield f"no video of {key.task}: {error}"
                failed.add(key.task)
                continue
            clips[key.task, key.index] = clip
            ordered = [clips[place].to_json() for place in sorted(clips)]
            write_json(record.folder / INDEX, {"clips": ordered})
            yield clip


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


@contextmanager
def _processes(count: int, folder: Path) -> Iterator[ProcessPoolExecutor]:
    """Processes of their own: how MuJoCo renders is decided when it is imported."""
    executor = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )
    before = set(multiprocessing.active_children())
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
            process.join()
        for partial in folder.glob(f"{FOLDER}/.*.partial.mp4"):
            partial.unlink(missing_ok=True)
        raise
    executor.shutdown()


def _begin() -> None:
    """What a process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    from benchmarks.video.screens import has_display

    if not has_display():
        os.environ.setdefault("MUJOCO_GL", "egl")


def _film(choice: PolicyChoice, key: EpisodeKey, folder: Path) -> EpisodeResult:
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
        asked = subprocess.run(
            [sys.executable, "-c", _RENDERER], capture_output=True, check=False, timeout=60
        )
        return any(name in asked.stdout for name in (b"llvmpipe", b"softpipe", b"swrast"))
    return True
