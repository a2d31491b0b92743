"""The page of a run: complete, self-contained, and safe whatever a traceback holds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from html_pages import checked

from benchmarks.protocol import Protocol, TaskRules
from benchmarks.references import Reference, TaskReferences
from benchmarks.report import html as page
from benchmarks.report.html import main, render_page, write_page
from benchmarks.report.summary import Summary, summarise
from benchmarks.statistics.aggregates import profile
from benchmarks.store.run_store import Record, RunHeader
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, EpisodeResult

TASKS = ("babyai-go-to", "babyai-lost", "babyai-open", "babyai-unlock")
PROTOCOL = Protocol(
    "babyai", {task: TaskRules(task, 64) for task in TASKS}, 4, 3, {"minigrid": "3"}
)
HEADER = RunHeader(
    PROTOCOL,
    {"name": "runs/<script>alert(1)</script>", "weights": "abc123", "seed": None},
    command="python -m benchmarks.run --tasks '<b>'",
)


@pytest.fixture
def summary() -> Summary:
    measured = {
        task: TaskReferences(
            Reference(0.0, 0.0, 4, None, "by hand"),
            Reference(0.0 if task == "babyai-lost" else 1.0, 0.0, 4, None, "by hand"),
        )
        for task in TASKS
    }
    returns = {"babyai-go-to": 0.5, "babyai-open": 9.0, "babyai-unlock": -7.0, "babyai-lost": 1.0}
    results = [
        EpisodeResult(key, returns[task], 5, True, True, 0.1)
        for task in TASKS
        for key in PROTOCOL.episodes_of(task)
        if task != "babyai-go-to" or key.index
    ]
    failure = EpisodeFailure(
        PROTOCOL.episodes_of("babyai-go-to")[0], "Traceback\nValueError: <img src=x> & co", 7, 1.0
    )
    return summarise(HEADER, results, [failure], measured=measured)


def test_the_page_loads_nothing_and_is_well_formed(summary: Summary) -> None:
    text = render_page(summary)
    page = checked(text)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert [a for a in page.addresses if not a.startswith("https://arxiv.org/abs/")] == []
    assert "@import" not in text
    assert "url(" not in text
    assert "viewport" in text
    assert "prefers-color-scheme: dark" in text


def test_everything_a_reader_must_know_is_on_it(summary: Summary) -> None:
    page = checked(render_page(summary))
    text = " ".join(page.text.split())
    for shown in (
        "Incomplete: 15 of 16 episodes",
        "ValueError: <img src=x> & co",
        HEADER.command,
        PROTOCOL.hash,
        "minigrid 3",
        "abc123",
        "expert not above random",
        "another protocol",
        "mean of suites",
        "numpy==",
        *(str(key.seed) for key in PROTOCOL.episodes_of("babyai-open")),
    ):
        assert str(shown) in text, shown
    for aggregate in summary.aggregates:
        assert f"{aggregate.value:.3f}".replace("-", "−") in text


def test_bars_are_to_scale_and_say_when_they_are_not(summary: Summary) -> None:
    scale = page.Scale.of(summary.tasks)
    # The scale goes from -0.5 to 2: random is a fifth of the way, the expert three fifths.
    assert [scale.place(score) for score in (0.0, 1.0, 0.5)] == [20.0, 60.0, 40.0]
    assert scale.ticks() == [-0.5, 0.0, 0.5, 1.0, 1.5, 2.0]
    lines = render_page(summary).split('<div class="row">')[1:]
    bars = {line[: line.index("</div>")].split(">")[-1]: line for line in lines}
    assert 'class="fill" style="left:20.0%;width:20.0%"' in bars["go-to"]
    assert 'class="fill" style="left:20.0%;width:80.0%"' in bars["open"]
    assert 'class="fill" style="left:0.0%;width:20.0%"' in bars["unlock"]
    beyond = {name: re.findall(r'class="more (\w+)"', line) for name, line in bars.items()}
    assert beyond == {"go-to": [], "lost": [], "open": ["right"], "unlock": ["left"]}
    assert "expert not above random: not in any average" in bars["lost"]


def test_curves_are_drawn_where_they_belong() -> None:
    curves = profile(dict.fromkeys(("a-x", "a-y"), np.full(5, 0.5)), (0.0, 0.5, 1.0))
    assert curves is not None
    (_, episodes), (caption, tasks) = page._drawings(curves)
    (axes,) = episodes.axes
    curve, expert = axes.lines
    assert curve.get_xydata() == pytest.approx(np.array([[0.0, 1.0], [0.5, 0.0], [1.0, 0.0]]))
    assert list(expert.get_xdata()) == [1.0, 1.0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0.0, 1.0), (0.0, 1.0))
    assert len(axes.collections) == 1, "the interval"
    (axes,) = tasks.axes
    assert axes.lines[0].get_xydata().tolist() == [[0.0, 2.0], [0.5, 0.0], [1.0, 0.0]]
    assert axes.get_ylim() == (0.0, 2.0)
    _, svg = page._svg(caption, tasks)
    text = checked(svg).text.split()
    assert {"0", "1", "2", "100%", "expert"} <= set(text)
    assert "#3b6fb6" not in svg, "the page's own colour, which the dark changes"
    assert svg.count("var(--bar)") >= 2
    assert 'aria-label="Tasks above each percentage of expert' in svg
    few = profile({"a-x": np.full(2, 0.5)}, (0.0, 1.0))
    assert few is not None
    assert not page._drawings(few)[0][1].axes[0].collections


def test_a_run_in_which_nothing_could_be_played_has_a_page() -> None:
    failures = [EpisodeFailure(key, "OSError: no") for key in PROTOCOL.episodes_of("babyai-open")]
    text = checked(render_page(summarise(HEADER, [], failures))).text
    assert "0 of 16 episodes" in text
    assert "OSError: no" in text
    assert "none played to its end" in text


def test_several_suites_are_told_apart_and_humans_shown_for_atari() -> None:
    tasks = {task: TaskRules(task, None) for task in ("atari-alien", "babyai-open")}
    header = dataclasses.replace(HEADER, protocol=Protocol("all", tasks, 1, 0, {}))
    results = [EpisodeResult(EpisodeKey(task, 0, 0), 1.0, 1, None, True, 0.1) for task in tasks]
    measured = {
        task: TaskReferences(*(Reference(mean, 0, 1, None, "") for mean in (0.0, 2.0)))
        for task in tasks
    }
    text = checked(render_page(summarise(header, results, measured=measured))).text
    for shown in ("Atari", "BabyAI", "human as published"):
        assert shown in text


def test_a_suite_that_only_a_human_is_known_of_has_a_row() -> None:
    tasks = {"atari-alien": TaskRules("atari-alien", None)}
    header = dataclasses.replace(HEADER, protocol=Protocol("atari", tasks, 1, 0, {}))
    result = EpisodeResult(EpisodeKey("atari-alien", 0, 0), 1.0, 1, None, True, 0.1)
    text = checked(render_page(summarise(header, [result], measured={}))).text
    assert re.search(r"Atari\s*1\b", text)


def test_the_command_makes_the_page_of_a_recorded_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = PROTOCOL.episodes_of("babyai-open")[0]
    with Record(tmp_path / "run", HEADER, resume=False) as record:
        record.append(EpisodeResult(key, 0.5, 5, True, True, 0.1))
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert main([str(tmp_path / "run"), "--output", str(tmp_path / "new" / "page.html")]) == 0
    checked((tmp_path / "new" / "page.html").read_text())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
    assert main([str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").exists()
    capsys.readouterr()
    assert main([str(tmp_path)]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err


def test_a_page_is_never_half_written(
    tmp_path: Path, summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_page(tmp_path / "report.html", summary)
    assert list(tmp_path.iterdir()) == []
