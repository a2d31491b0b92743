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
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
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
        for package in ("av", "PIL", "matplotlib"):
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
    wanted: dict[str, list[EpisodeResult]] = {}
    for task in record.header.protocol.tasks:
        for key in record.header.protocol.episodes_of(task)[:count]:
            if key in record.results and (task, key.index) not in clips:
                wanted.setdefault(task, []).append(record.results[key])
    if not wanted:
        return
    with _processes(min(workers, len(wanted))) as executor:
        jobs = {
            executor.submit(_film, choice, task, keys, record.folder): task
            for task, played in wanted.items()
            if (keys := [each.key for each in played])
        }
        for job in as_completed(jobs):
            results = _results(job, jobs[job])
            if isinstance(results, str):
                yield results
                continue
            for result in results:
                clip = _clip(result, record.results[result.key])
                clips[clip.task, clip.episode] = clip
                ordered = [clips[place].to_json() for place in sorted(clips)]
                write_json(record.folder / INDEX, {"clips": ordered})
                yield clip


def _results(job: Future[list[EpisodeResult]], task: str) -> list[EpisodeResult] | str:
    try:
        return job.result()
    except BrokenProcessPool as error:
        return f"no video of {task}: a process was killed ({error})"
    except Exception as error:  # of a renderer, an environment, the disk
        return f"no video of {task}: {error}"


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
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
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
        raise
    executor.shutdown()


def _begin() -> None:
    """What a process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    from benchmarks.video.screens import has_display

    if not has_display():
        os.environ.setdefault("MUJOCO_GL", "egl")


def _film(
    choice: PolicyChoice, task_id: str, keys: Sequence[EpisodeKey], folder: Path
) -> list[EpisodeResult]:
    """Play episodes of a task, each into a file of its own; what they came to."""
    from benchmarks.video.screens import Video
    from benchmarks.video.viewer import perform
    from gato_gym.tasks import get_task

    results = []
    for key in keys:
        open_screen = partial(Video, folder / _file(key), quality=QUALITY)
        results += perform(get_task(task_id), choice, [key], open_screen)
    return results
