"""Small files of each kind that the package reads, for tests to damage; and limits to read within.

* :data:`KINDS` -- by name, what writes one and what reads it.
* :func:`limits` -- fails what takes much memory, or never ends.
* :func:`places`, :func:`replaced` -- the paths in a JSON value; a copy with another value at one.
"""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from small import SMALL, STATE, state_plan, talking_plan

from benchmarks.protocol import Protocol, TaskRules
from benchmarks.store.clips import read_clips
from benchmarks.store.run_store import Record, RunHeader, read_run
from gato_gym import Episode, write_minari
from gato_gym.episodes.minari_datasets import episodes_of, find_minari, returns_of
from policies import GatoPolicy
from policies.expert_training.training_state import TrainingState, load_state, save_state
from policies.experts.mlp import ExpertNetwork
from policies.experts.store import load_expert, save_expert
from policies.gato.checkpoint import save_checkpoint
from policies.gato.prompts import prompt_from_episode
from policies.gato.sampling import Sampler
from policies.gato.task_specs import TaskRecord
from policies.model.network import GatoNetwork
from policies.rollout.outcomes import EpisodeFailure, EpisodeResult
from policies.rollout.timing import Costs
from policies.training.data.shards import TaskShard, write_shard
from policies.training.data.text_shards import TextShard, shard_texts
from policies.training.data.text_sources import find_texts

MEMORY, SECONDS = 3 * 2**30, 120


@contextmanager
def limits(memory: int = MEMORY, seconds: float = SECONDS) -> Iterator[None]:
    """What needs more memory beside what the process has raises MemoryError; what hangs, too.

    Args:
        memory: Bytes of address space.
        seconds: After which it counts as endless.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)

    def stop(*_: object) -> None:
        raise MemoryError(f"not ended after {seconds} seconds")

    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, before[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a JSON value."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield (key,)
            for rest in places(each):
                yield (key, *rest)


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with something else at a path."""
    copy = json.loads(json.dumps(value))
    part = copy
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = new
    return copy


def episode(length: int = 20, task: str = "act") -> Episode:
    """Random numbers of the spaces of :func:`small.state_plan`."""
    generator = np.random.default_rng(0)
    return Episode(
        task=task,
        observations=generator.uniform(-1, 1, (length + 1, 3)).astype(np.float32),
        actions=generator.uniform(-1, 1, (length, 2)).astype(np.float32),
        rewards=np.ones(length, np.float32),
        terminations=np.arange(length) == length - 1,
        truncations=np.zeros(length, bool),
        seed=1,
    )


class Spaces(gym.Env[Any, Any]):
    """The spaces of :func:`small.state_plan`; never played."""

    observation_space, action_space = STATE, spaces.Box(-1, 1, (2,), np.float32)


def write_checkpoint(folder: Path) -> None:
    """A network of two tasks, one with a prompt."""
    torch.manual_seed(0)
    prompt = prompt_from_episode(state_plan(), episode(), capacity=16, cut="end")
    tasks = {"act": TaskRecord.of(state_plan(), prompt), "talk": TaskRecord.of(talking_plan())}
    save_checkpoint(folder, GatoNetwork(SMALL), tasks, Sampler(), dtype=torch.bfloat16)


def play_checkpoint(folder: Path) -> None:
    """Load it for both tasks, and act once."""
    for task in ("act", "talk"):
        policy = GatoPolicy.load(folder, task=task)
        policy.predict(policy.plan.observation_space.sample())


def write_expert(folder: Path) -> None:
    """An expert of vectors."""
    ones = np.ones(3, np.float32)
    layer = (np.ones((2, 3), np.float32), np.ones(2, np.float32))
    network = ExpertNetwork(ones, ones, (), layer, layer, "tanh", squash=False)
    save_expert(folder, network, {"algorithm": "sac", "steps": 100})


def write_dataset(folder: Path) -> None:
    """A Minari dataset of two episodes."""
    episodes = [episode(), episode(5)]
    write_minari("made-v0", episodes, env=Spaces(), root=folder.parent, expert_return=20.0)
    folder.with_name("made-v0").rename(folder)


def read_dataset(folder: Path) -> None:
    """All that a training reads of it."""
    dataset = find_minari(folder)
    returns_of(dataset)
    list(episodes_of(dataset))


def write_run(folder: Path) -> None:
    """A benchmark's run: an episode, and one that failed."""
    protocol = Protocol("babyai", {"babyai-open": TaskRules("a", 10)}, 3, 0, {"minigrid": "3.0"})
    header = RunHeader(protocol, {"name": "random", "weights": None})
    first, second, _ = protocol.episodes_of("babyai-open")
    with Record(folder, header, resume=False) as record:
        record.append(EpisodeResult(first, 1.5, 3, True, True, 0.25, "00ff"))
        record.append(EpisodeFailure(second, "ValueError: no", 2, 0.5))
    clip = {"task": "babyai-open", "episode": 0, "seed": first.seed, "file": "videos/a.mp4"}
    outcome = {"return": 1.5, "length": 3, "success": None, "same": True}
    (folder / "videos.json").write_text(json.dumps({"clips": [{**clip, **outcome}]}))
    (folder / "cost.json").write_text(json.dumps(Costs().to_json()))


def inspect_run(folder: Path) -> None:
    """All that a report reads of it."""
    read_run(folder)
    read_clips(folder)
    Costs.of_run(folder)


def write_task_shard(folder: Path) -> None:
    """A task's episodes as tokens."""
    from minari.serialization import serialize_space

    plan = state_plan()
    written = [serialize_space(plan.observation_space), serialize_space(plan.action_space)]
    meta = {
        "task": "act",
        "group": "act",
        "options": plan.options.to_json(),
        "spaces": written,
    }
    write_shard(folder, plan, [episode(), episode(5)], meta)


def write_pairs(folder: Path) -> None:
    """Images with texts, and a text."""
    from PIL import Image

    folder.mkdir()
    Image.new("RGB", (20, 20)).save(folder / "red.png")
    Image.new("RGB", (20, 20)).save(folder / "blue.jpg")
    lines = [json.dumps({"image": name, "text": "a square"}) for name in ("red.png", "blue.jpg")]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "book.txt").write_text("Once upon a time")


def read_pairs(folder: Path) -> None:
    """Encode both."""
    sources = find_texts([folder / "book.txt"], [folder / "pairs.jsonl"])
    shard_texts(sources, folder.with_name("shards"))


def write_text_shard(folder: Path) -> None:
    """Images with texts as tokens."""
    write_pairs(folder.with_name("sources"))
    (source,) = find_texts([], [folder.with_name("sources") / "pairs.jsonl"])
    shard_texts([source], folder.parent)
    (folder.parent / "pairs").rename(folder)


def read_text_shard(folder: Path) -> None:
    """Open it, and take its first text."""
    TextShard.open(folder).passage(0)


def write_state(folder: Path) -> None:
    """The state of a training of an expert."""
    folder.mkdir()
    state = TrainingState(steps=3, curve=[(1, 2.0, 3.0, 4.0)])
    save_state(folder / "state.safetensors", state, {"a": torch.ones(3)}, {"seed": 0})


def read_state(folder: Path) -> None:
    """Take it up."""
    load_state(folder / "state.safetensors")


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Attributes:
        write: Makes a sound one.
        read: Reads it as the package does.
    """

    write: Callable[[Path], None]
    read: Callable[[Path], Any]


KINDS = {
    "checkpoint": Kind(write_checkpoint, play_checkpoint),
    "expert": Kind(write_expert, load_expert),
    "dataset": Kind(write_dataset, read_dataset),
    "run": Kind(write_run, inspect_run),
    "shard": Kind(write_task_shard, TaskShard.open),
    "texts": Kind(write_pairs, read_pairs),
    "text-shard": Kind(write_text_shard, read_text_shard),
    "state": Kind(write_state, read_state),
}
