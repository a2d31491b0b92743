"""Scenes, their sentences, and how captions are counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.studies.captions import (
    COLOURS,
    KINDS,
    PLACES,
    Scene,
    count_hits,
    draw_scenes,
    held_out,
    main,
    write_scenes,
)


def test_a_scene_shows_what_its_sentence_says() -> None:
    scene = Scene("ball", "green", "bottom left", (1, 5), (4, 0), 0)
    assert scene.sentence == "a green ball at the bottom left"
    picture = scene.render().astype(int)
    assert picture.shape == (48, 48, 3)
    green = (picture[..., 1] > 150) & (picture[..., 0] < 60)
    rows, columns = green.nonzero()
    assert {*(rows // 8)} == {5}
    assert {*(columns // 8)} == {1}
    red = (picture[..., 0] > 150) & (picture[..., 1] < 60)
    assert {*(red.nonzero()[0] // 8)} == {0}, "the agent"
    others = [Scene(k, c, "bottom left", (1, 5), (4, 0), 0) for k in KINDS for c in COLOURS]
    assert len({other.render().tobytes() for other in others}) == 18


def test_scenes_are_where_they_are_said_to_be_and_no_two_alike() -> None:
    scenes = draw_scenes(500, seed=3)
    assert scenes == draw_scenes(500, seed=3)
    assert scenes != draw_scenes(500, seed=4)
    assert len(set(scenes)) == 500
    for scene in scenes:
        column, row = (n // 2 for n in scene.cell)
        assert PLACES[3 * row + column] == scene.place
        assert scene.agent != scene.cell
        assert all(0 <= n <= 5 for n in (*scene.agent, *scene.cell))


def test_held_out_combinations_are_new_but_made_of_known_parts() -> None:
    rare = held_out()
    assert len(rare) == 18
    known, new = draw_scenes(2000, seed=0), draw_scenes(100, seed=0, new=True)
    assert {scene.parts for scene in known}.isdisjoint(rare)
    assert {scene.parts for scene in new} <= rare
    assert len({(kind, colour) for kind, colour, _ in rare}) == 18
    assert {place for _, _, place in rare} == set(PLACES)
    assert len({scene.parts for scene in known}) == 162 - 18


def test_captions_are_counted_by_what_they_name() -> None:
    scene = Scene("key", "red", "top", (3, 0), (5, 5), 1)
    captions = {
        "a red key at the top": (1, 1, 1, 1),
        "a red key at the top left": (1, 1, 0, 0),
        "a blue key at the top": (1, 0, 1, 0),
        "a red box at the centre": (0, 1, 0, 0),
        "red red key key top": (0, 0, 0, 0),
        "": (0, 0, 0, 0),
    }
    for caption, expected in captions.items():
        assert tuple(count_hits([caption], [scene]).values()) == expected
    both = count_hits(list(captions), [scene] * 6)
    assert both == {"object": 3, "colour": 3, "place": 2, "all": 1}
    with pytest.raises(ValueError, match="zip"):
        count_hits([""], [scene, scene])


def test_files_hold_the_scenes(tmp_path: Path) -> None:
    scenes = draw_scenes(3, seed=9)
    path = write_scenes(scenes, tmp_path / "scenes")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["text"] for line in lines] == [scene.sentence for scene in scenes]
    for line, scene in zip(lines, scenes, strict=True):
        assert np.array_equal(np.array(Image.open(path.parent / line["image"])), scene.render())


def test_the_command_goes_from_nothing_to_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--scenes", "6", "--episodes", "2", "--steps", "1", "--output", str(tmp_path / "run")]
    small += ["--test-scenes", "1", "--test-episodes", "1"]
    assert main(small) == 0
    first = capsys.readouterr().out
    counted = json.loads((tmp_path / "run" / "captions.json").read_text())
    assert counted["unseen scenes"]["of"] == counted["unseen combinations"]["of"] == 1
    assert counted["babyai-go-to-local"]["of"] == 1
    assert main(small) == 0
    again = capsys.readouterr().out
    assert "resuming at step 1" in again
    assert first.splitlines()[-3:] == again.splitlines()[-3:]
