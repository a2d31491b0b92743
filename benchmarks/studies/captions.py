"""One network that captions images and plays: ``python -m benchmarks.studies.captions``.

Makes MiniGrid rooms with one object, rendered as RGB, and a sentence for each; records the bot's
episodes of a BabyAI level; trains a small network on both in the same batches; and counts how often
its captions of rooms it has not seen name the object, the colour and the place. Every part that is
there is kept, so that the command can be stopped and run again.

* :class:`Scene` -- a room, its picture and its sentence.
* :func:`draw_scenes`, :func:`write_scenes` -- rooms, and their files.
* :func:`count_hits` -- which words of a caption are right.
* :class:`Captions` -- the command.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import gato_gym
from gato_gym.commands.common import Command, Invocation, run_command
from gato_gym.files.atomic_io import appearing, write_json
from policies import GatoPolicy, make_policy
from policies.collection.record import play_returns, record_episodes
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

LEVEL = "babyai-go-to-local"
KINDS = ("ball", "box", "key")
COLOURS = ("blue", "green", "grey", "purple", "red", "yellow")
PLACES = (
    "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom",
    "bottom right",
)  # fmt: skip
ROOM = 6
"""Cells of a room's side: nine places of two by two cells."""
TILE = 8
"""Pixels of a cell's side."""


@dataclass(frozen=True)
class Scene:
    """A room with one object and the agent.

    Attributes:
        kind: One of :data:`KINDS`.
        colour: One of :data:`COLOURS`.
        place: One of :data:`PLACES`.
        cell: Column and row of the object's cell.
        agent: Column and row of the agent's cell.
        direction: Where the agent looks, 0 to 3.
    """

    kind: str
    colour: str
    place: str
    cell: tuple[int, int]
    agent: tuple[int, int]
    direction: int

    @property
    def sentence(self) -> str:
        """Such as "a red ball at the top left"."""
        return f"a {self.colour} {self.kind} at the {self.place}"

    @property
    def parts(self) -> tuple[str, str, str]:
        """Object, colour and place."""
        return self.kind, self.colour, self.place

    def render(self) -> NDArray[np.uint8]:
        """The room from above, without walls: uint8 ``[48, 48, 3]``."""
        from minigrid.core.grid import Grid
        from minigrid.core.world_object import Ball, Box, Key

        grid = Grid(ROOM, ROOM)
        figure = dict(zip(KINDS, (Ball, Box, Key), strict=True))[self.kind]
        grid.set(*self.cell, figure(self.colour))
        return np.asarray(grid.render(TILE, self.agent, self.direction), np.uint8)


def held_out() -> frozenset[tuple[str, str, str]]:
    """Combinations of object, colour and place that no training scene has: one of nine.

    Every object, colour, place, and pair of object and colour is in training.
    """
    return frozenset(
        (kind, colour, PLACES[(5 * i + j) % len(PLACES)])
        for i, kind in enumerate(KINDS)
        for j, colour in enumerate(COLOURS)
    )


def draw_scenes(count: int, seed: int, *, new: bool = False) -> list[Scene]:
    """Random rooms.

    Args:
        count: How many, no two the same.
        seed: Seed of the draw.
        new: Whether to draw from the combinations that training does not have, or from the others.
    """
    generator = np.random.default_rng(seed)
    rare = held_out()
    combinations = [c for c in itertools.product(KINDS, COLOURS, PLACES) if (c in rare) == new]
    drawn: dict[Scene, None] = {}
    while len(drawn) < count:
        kind, colour, place = combinations[generator.integers(len(combinations))]
        row, column = divmod(PLACES.index(place), 3)
        x, y = (int(n) for n in generator.integers(2, size=2))
        cell = (2 * column + x, 2 * row + y)
        agent = (int(generator.integers(ROOM)), int(generator.integers(ROOM)))
        if agent != cell:
            scene = Scene(kind, colour, place, cell, agent, int(generator.integers(4)))
            drawn[scene] = None
    return list(drawn)


def write_scenes(scenes: Sequence[Scene], folder: Path) -> Path:
    """Write ``scenes.jsonl`` and its images; the folder appears when it is complete."""
    from PIL import Image

    if not folder.exists():
        with (
            appearing(folder, own=("scenes.jsonl", "*.png")) as partial,
            (partial / "scenes.jsonl").open("w") as file,
        ):
            for index, scene in enumerate(scenes):
                name = f"{index:05d}.png"
                Image.fromarray(scene.render()).save(partial / name)
                file.write(json.dumps({"image": name, "text": scene.sentence}) + "\n")
    return folder / "scenes.jsonl"


def count_hits(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, int]:
    """How many captions have the right object, colour, place, and all three.

    A caption that is no sentence of these words has none.
    """
    hits = dict.fromkeys(("object", "colour", "place", "all"), 0)
    by_sentence = {
        f"a {colour} {kind} at the {place}": (kind, colour, place)
        for kind, colour, place in itertools.product(KINDS, COLOURS, PLACES)
    }
    for caption, scene in zip(captions, scenes, strict=True):
        words = by_sentence.get(caption.strip(), ("", "", ""))
        right = [a == b for a, b in zip(words, scene.parts, strict=True)]
        for name, hit in zip(hits, (*right, all(right)), strict=True):
            hits[name] += hit
    return hits


def caption(policy: GatoPolicy, scenes: Sequence[Scene]) -> Iterator[str]:
    """The likeliest caption of each scene."""
    for scene in scenes:
        yield policy.generate_text(image=scene.render(), max_tokens=16, temperature=0)


def record_level(episodes: int, root: Path) -> Path:
    """The bot's episodes of the control task as a dataset under ``root``, if not there already."""
    name = f"captions/{LEVEL}-v0"
    if not (root / name).exists():
        env = gato_gym.make(f"Gato/{LEVEL}")
        record_episodes(env, make_policy("expert", env=env), episodes, name, root=root)
        env.close()
    return root / name


def score(folder: Path, scenes: int, episodes: int) -> dict[str, Mapping[str, int]]:
    """What a trained network captions and plays, none of which it has seen.

    Returns:
        Hits of "unseen scenes" and of "unseen combinations", with their count as ``of``; and
        episodes solved of the control task.
    """
    env = gato_gym.make(f"Gato/{LEVEL}")
    policy = GatoPolicy.load(folder, env=env, device="cpu")
    hits: dict[str, Mapping[str, int]] = {}
    for name, new in (("unseen scenes", False), ("unseen combinations", True)):
        drawn = draw_scenes(scenes, seed=1, new=new)
        hits[name] = {**count_hits(list(caption(policy, drawn)), drawn), "of": scenes}
    returns = play_returns(env, policy, episodes, deterministic=False)
    env.close()
    hits[LEVEL] = {"solved": sum(value > 0 for value in returns), "of": episodes}
    return hits


@dataclass(frozen=True)
class Captions(Command):
    """Train a network that captions and plays, and score it.

    Attributes:
        output: Folder of the study.
        scenes: Scenes to train on.
        episodes: Episodes of the control task to train on.
        steps: Updates.
        weight: Weight of captions, the control task's being 1.
        test_scenes: Scenes of each kind to caption.
        test_episodes: Episodes to play.
        seed: Seed of scenes, weights and batches.
    """

    output: Path = Path("runs/captions")
    scenes: int = 4000
    episodes: int = 400
    steps: int = 450
    weight: float = 3.0
    test_scenes: int = 200
    test_episodes: int = 50
    seed: int = 0

    def run(self, call: Invocation) -> None:
        torch.set_num_threads(1)
        tests = set(draw_scenes(self.test_scenes, seed=1))
        rooms = [s for s in draw_scenes(self.scenes, seed=self.seed + 2) if s not in tests]
        pairs = write_scenes(rooms, self.output / "scenes")
        dataset = record_level(self.episodes, self.output / "data")
        settings = TrainSettings(
            datasets=(str(dataset),),
            pairs=(pairs,),
            output=self.output / "run",
            preset="tiny",
            rows=8,
            length=128,
            steps=self.steps,
            weights={"scenes": self.weight},
            seed=self.seed,
            device="cpu",
            score_every=0,
        )
        training = TrainRun(settings)
        training.describe()
        training.train()
        scores = score(self.output / "run", self.test_scenes, self.test_episodes)
        write_json(self.output / "captions.json", scores)
        for name, hits in scores.items():
            line = ", ".join(f"{what} {n}" for what, n in hits.items() if what != "of")
            print(f"{name}: {line} of {hits['of']}")


main = partial(run_command, Captions, prog="python -m benchmarks.studies.captions")

if __name__ == "__main__":
    sys.exit(main())
