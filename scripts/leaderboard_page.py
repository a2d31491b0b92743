"""Put submissions on the leaderboard, and write its page.

gato-gym bench --suite babyai --policy runs/mine --output results/mine
gato-gym submit results/mine
python scripts/leaderboard_page.py results/mine/submission.json

``docs/leaderboard.json`` holds the submissions; ``docs/leaderboard.md`` shows them beside random
play, the experts, and published figures, which have other protocols.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import references
from benchmarks.statistics.aggregates import suite_of
from gato_gym.commands.common import exit_status
from gato_gym.files.atomic_io import write_json, write_whole
from gato_gym.files.bounded_io import read_json
from gato_gym.tasks import get_suite, list_suites

DOCS = Path(__file__).parents[1] / "docs"
HEAD = """# Leaderboard

Written by `scripts/leaderboard_page.py` from [leaderboard.json](leaderboard.json). A submission has
played every task of a suite, at least 20 episodes each with seed 0, in the simulators' versions
that random play and the experts were measured in; `gato-gym submit` checks that and writes its
figures. Scores are (return − random) / (expert − random), with their 95 % intervals
([the protocol](protocol.md)).

To enter, run `gato-gym bench --suite SUITE --policy YOURS --output FOLDER` and
`gato-gym submit FOLDER`, run the script on `FOLDER/submission.json`, and send the change.
"""

PUBLISHED: tuple[tuple[Literal["jat", "human"], str], ...] = (
    ("jat", "JAT (arXiv 2402.09844)"), ("human", "human"),
)  # fmt: skip
"""Players with published returns."""


def key(entry: dict[str, Any]) -> tuple[str, str, str]:
    """What a later submission of the same policy replaces."""
    policy = entry["policy"]
    return policy["name"], str(policy.get("weights")), entry["protocol_hash"]


def add(entries: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The submissions with a new one, sorted."""
    if missing := {"policy", "protocol", "protocol_hash", "aggregates", "tasks"} - new.keys():
        raise ValueError(f"the submission has no {', '.join(sorted(missing))}: expected the file "
                         "that gato-gym submit wrote")  # fmt: skip
    by_key = {key(each): each for each in entries} | {key(new): new}
    return [by_key[each] for each in sorted(by_key)]


def interval(value: dict[str, Any] | None) -> str:
    """An average and its interval."""
    if value is None:
        return "–"
    ends = "" if value["low"] is None else f" ({value['low']:.3f} to {value['high']:.3f})"
    return f"{value['value']:.3f}{ends}"


def success_of(suite: str, player: str) -> float | None:
    """The mean success of random play or the experts; None where there is none."""
    played = [getattr(each, player) for each in references.measured(suite).values()]
    successes = [each.success for each in played if each is not None and each.success is not None]
    return float(np.mean(successes)) if successes else None


def section(suite: str, entries: list[dict[str, Any]]) -> list[str]:
    """A suite: submissions by their mean, between the experts and random play; then others'."""
    protocol = references.measured_protocol(suite)
    if protocol is None:
        return []
    rows = []
    for entry in entries:
        averages = entry["suites"].get(suite)
        if averages is None:
            continue
        mean = averages.get("normalised mean")
        played = sum(suite_of(task) == suite for task in entry["tasks"])
        cells = (
            f"`{entry['policy']['name']}`", str(played), interval(mean),
            interval(averages.get("normalised IQM")), interval(averages.get("success")),
            f"{entry['protocol']['episodes']}", f"`{entry['protocol_hash']}`",
        )  # fmt: skip
        rows.append((mean["value"] if mean else -np.inf, cells))
    measured = references.measured(suite)
    for player, score in (("expert", 1.0), ("random", 0.0)):
        known = [each for each in measured.values() if getattr(each, player) is not None]
        success = success_of(suite, player)
        said = "–" if success is None else f"{success:.3f}"
        cells = (f"*{player}*", str(len(known)), f"{score:.3f}", f"{score:.3f}", said,
                 str(protocol.episodes), "reference")  # fmt: skip
        rows.append((score, cells))
    heads = ("policy", "tasks", "normalised mean", "normalised IQM", "success", "episodes a task",
             "protocol")  # fmt: skip
    ordered = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    table = [f"| {' | '.join(cells)} |" for cells in (heads, ("---",) * len(heads), *ordered)]
    lines = [f"## {get_suite(suite).title or suite}", "", *table, ""]
    return lines + published(suite)


def published(suite: str) -> list[str]:
    """What others report, under protocols of their own."""
    tasks = [task for task in references.published() if suite_of(task) == suite]
    lines = []
    for player, name in PUBLISHED:
        scores = [references.published_normalised(task, player) for task in tasks]
        known = [score for score in scores if score is not None]
        if known:
            lines.append(
                f"- {name}: normalised mean {np.mean(known):.3f}, median {np.median(known):.3f} "
                f"over {len(known)} tasks, by the random and expert returns published with JAT."
            )
    aggregates = references.published_aggregates(suite).items()
    lines += [f"- {name}: {value:.3f}." for name, value in aggregates]
    if not lines:
        return []
    return ["Published, under other protocols, not comparable with the table:", "", *lines, ""]


def page(entries: list[dict[str, Any]]) -> str:
    """``docs/leaderboard.md``."""
    lines = [line for suite in list_suites() for line in section(suite, entries)]
    return HEAD + "\n" + "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """The command line: files that ``gato-gym submit`` wrote; none writes the page anew."""
    path = DOCS / "leaderboard.json"
    entries = read_json(path)["entries"] if path.exists() else []
    for file in sys.argv[1:]:
        entries = add(entries, read_json(Path(file)))
    write_json(path, {"format": 1, "entries": entries})
    write_whole(DOCS / "leaderboard.md", page(entries))


if __name__ == "__main__":
    sys.exit(exit_status(main))
