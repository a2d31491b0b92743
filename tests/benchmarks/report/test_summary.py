"""A summary says what a hand calculation says, and flags what cannot be normalised."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import pytest
from rich.console import Console

from benchmarks.protocol import Protocol, TaskRules
from benchmarks.references import Reference, TaskReferences
from benchmarks.report.summary import render, summarise
from benchmarks.report.task_summary import EXPERT_NOT_ABOVE_RANDOM, NO_REFERENCE
from benchmarks.store.run_store import RunHeader
from policies.rollout.outcomes import EpisodeKey, EpisodeResult

TASKS = ("babyai-easy", "babyai-hard", "babyai-lost", "babyai-new")
HEADER = RunHeader(
    Protocol("babyai", {task: TaskRules(task, None) for task in TASKS}, 2, 0, {}),
    {"name": "gato-mini"},
)


def reference(random: float, expert: float) -> TaskReferences:
    return TaskReferences(*(Reference(mean, 0.0, 10, None, "by hand") for mean in (random, expert)))


MEASURED: Mapping[str, TaskReferences] = {
    "babyai-easy": reference(0.0, 1.0),
    "babyai-hard": reference(10.0, 20.0),
    "babyai-lost": reference(0.5, 0.5),
}


def episode(task: str, index: int, total: float, success: bool | None) -> EpisodeResult:
    return EpisodeResult(EpisodeKey(task, index, index), total, 4 + index, success, True, 0.1)


RESULTS = [
    episode("babyai-new", 0, 9.0, None),
    episode("babyai-new", 1, 9.0, None),
    episode("babyai-hard", 1, 5.0, False),
    episode("babyai-easy", 0, 1.0, True),
    episode("babyai-hard", 0, 25.0, True),
    episode("babyai-easy", 1, 0.5, True),
    episode("babyai-lost", 0, 3.0, False),
    episode("babyai-lost", 1, 5.0, False),
]


def test_figures_by_hand() -> None:
    summary = summarise(HEADER, RESULTS, measured=MEASURED)
    tasks = {task.task: task for task in summary.tasks}
    assert [task.task for task in summary.tasks] == sorted(TASKS)
    easy, hard = tasks["babyai-easy"], tasks["babyai-hard"]
    assert (easy.mean, easy.normalised, easy.success, easy.length) == (0.75, 0.75, 1.0, 4.5)
    assert (hard.mean, hard.std, hard.normalised, hard.success) == (15.0, 10.0, 0.5, 0.5)
    values = {aggregate.name: aggregate for aggregate in summary.aggregates}
    assert values["normalised mean"].value == pytest.approx(0.625)
    # Scores 1, 0.5, 1.5, -0.5 without the lowest and the highest.
    assert values["normalised IQM"].value == pytest.approx(0.75)
    assert values["success"].value == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert values["normalised mean"].tasks == 2
    assert values["success"].tasks == 3
    assert {(each.low, each.high) for each in summary.aggregates} == {(None, None)}  # of two
    assert {(task.low, task.high) for task in summary.tasks} == {(None, None)}


def test_five_episodes_have_intervals_and_four_say_why_not() -> None:
    header = dataclasses.replace(HEADER, protocol=dataclasses.replace(HEADER.protocol, episodes=5))
    some = [episode("babyai-easy", index, index / 4, None) for index in range(5)]
    (five,) = summarise(header, some, measured=MEASURED).tasks
    assert five.normalised == 0.5
    assert five.low < 0.5 < five.high
    summary = summarise(header, some[:4], measured=MEASURED)
    assert summary.tasks[0].low is summary.tasks[0].high is None
    assert summary.tasks[0].normalised == 0.375
    assert any("5 episodes of each task" in warning for warning in summary.warnings)
    assert summary.to_json()["tasks"]["babyai-easy"]["low"] is None


def test_how_many_episodes_are_distinct_is_told() -> None:
    def digests(*digests_given: str | None) -> list[EpisodeResult]:
        return [
            dataclasses.replace(episode("babyai-easy", index, 1.0, True), digest=digest)
            for index, digest in enumerate(digests_given)
        ]

    def distinct_of(*digests_given: str | None) -> tuple[int | None, str, str]:
        summary = summarise(HEADER, digests(*digests_given), measured=MEASURED)
        console = Console(width=120)
        with console.capture() as captured:
            console.print(render(summary))
        repeated = [each for each in summary.warnings if "distinct" in each]
        return summary.tasks[0].distinct, captured.get(), "".join(repeated)

    distinct, table, warning = distinct_of(*"abcdefghij")
    assert (distinct, warning) == (10, "")
    assert "distinct" not in table
    distinct, table, warning = distinct_of(*"aabbccddee")
    assert (distinct, warning) == (5, "")
    assert "1.00 (5 of 10 distinct)" in table
    distinct, _, warning = distinct_of(*"a" * 10)  # a tenth is not below a tenth
    assert (distinct, warning) == (1, "")
    distinct, _, warning = distinct_of(*"ab" * 11)
    assert distinct == 2
    assert warning.endswith("babyai-easy 2 of 22")
    assert distinct_of("a", None)[0] is None  # an older record does not tell


def test_flagged_tasks_are_named_and_left_out() -> None:
    summary = summarise(HEADER, RESULTS, measured=MEASURED)
    flags = {task.task: task.flag for task in summary.tasks if task.flag}
    assert flags == {"babyai-lost": EXPERT_NOT_ABOVE_RANDOM, "babyai-new": NO_REFERENCE}
    assert all(task.normalised is None for task in summary.tasks if task.flag)
    assert any("babyai-lost" in warning for warning in summary.warnings)
    assert summary.to_json()["flagged"] == ["babyai-lost", "babyai-new"]


def test_references_of_another_simulator_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(HEADER.protocol, simulators={"minigrid": "3.1.0"})
    monkeypatch.setattr("benchmarks.references.measured_protocol", lambda suite: other)
    *_, warning = summarise(HEADER, RESULTS[2:6], measured=MEASURED).warnings
    assert "simulators.minigrid: recorded only" in warning
    assert "benchmarks.experts --suite babyai" in warning


def test_order_of_episodes_does_not_matter() -> None:
    forwards = summarise(HEADER, RESULTS, measured=MEASURED).to_json()
    backwards = summarise(HEADER, RESULTS[::-1], measured=MEASURED).to_json()
    assert forwards == backwards
    assert json.loads(json.dumps(forwards)) == forwards


def test_a_part_of_a_run_is_marked_incomplete() -> None:
    assert summarise(HEADER, RESULTS, measured=MEASURED).complete
    part = summarise(HEADER, RESULTS[:5], measured=MEASURED)
    assert not part.complete
    assert {task.task: task.episodes for task in part.tasks}["babyai-easy"] == 1


def test_table_shows_every_task_and_average() -> None:
    console = Console(width=100, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(render(summarise(HEADER, RESULTS, measured=MEASURED)))
    text = captured.get()
    for shown in ("easy", "hard", "0.62", "flagged", "normalised IQM", HEADER.protocol.hash):
        assert shown in text
    row = next(line for line in text.splitlines() if "hard" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("hard", "10.00", "20.00", "15.00", "0.50", "0.50")
    ]


def test_suites_of_one_task_each_have_no_tables_of_their_own() -> None:
    tasks = ("atari-alien", "babyai-go-to", "babyai-open")
    for count, shown in ((2, False), (3, True)):
        rules = {task: TaskRules(task, None) for task in tasks[:count]}
        header = RunHeader(Protocol("all", rules, 1, 0, {}), {"name": "gato-mini"})
        summary = summarise(header, [episode(task, 0, 1.0, None) for task in rules])
        console = Console(width=100, no_color=True)
        with console.capture() as capture:
            console.print(render(summary))
        lines = {line.strip() for line in capture.get().splitlines()}
        assert ("atari" in lines) == ("babyai" in lines) == shown
        assert "averages over tasks" in lines
