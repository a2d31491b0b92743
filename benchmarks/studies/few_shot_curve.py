"""The few-shot curve of a fine-tuning: a table and a plot.

* :class:`Unit` -- one point of one seed.
* :func:`write_curve` -- ``curve.csv`` and ``curve.png`` of the units that are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.studies.plots import can_draw, panels, write_csv
from policies.collection.scores import Scores, interval

ARMS = {
    "tuned": "fine-tuned",
    "scratch": "from scratch",
    "untrained": "zero-shot",
    "chance": "random",
}


@dataclass(frozen=True)
class Unit:
    """One training and what it scored.

    Attributes:
        arm: A key of :data:`ARMS`.
        episodes: Of its subset; 0 for arms that are not trained.
        seed: Of its subset and batches.
    """

    arm: str
    episodes: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}-{self.episodes:04d}-seed-{self.seed}"

    @property
    def title(self) -> str:
        """For people."""
        if not self.episodes:
            return ARMS[self.arm]
        plural = "s" if self.episodes > 1 else ""
        return f"{ARMS[self.arm]} on {self.episodes} episode{plural}, seed {self.seed}"


def write_curve(
    output: Path, scores: Mapping[Unit, Scores], *, task: str, expert: float
) -> list[dict[str, Any]]:
    """Write the table and the plot of what is done; returns the table's rows.

    A row is an arm and a number of episodes: means over seeds, and the 95 % bootstrap interval that
    redraws seeds, and episodes in them.
    """
    groups: dict[tuple[str, int], list[Scores]] = {}
    for unit, found in scores.items():
        groups.setdefault((unit.arm, unit.episodes), []).append(found)
    rows = [_row(arm, episodes, found) for (arm, episodes), found in sorted(groups.items())]
    blank = dict.fromkeys(rows[0])
    rows.append({**blank, "arm": "expert", "episodes": 0, "return": expert})
    write_csv(output / "curve.csv", rows)
    if can_draw():
        _draw(output / "curve.png", rows, task)
    return rows


def _row(arm: str, episodes: int, found: list[Scores]) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": arm, "episodes": episodes, "seeds": len(found)}
    figures: dict[str, list[Any]] = {"return": [s.returns for s in found]}
    told = [s.successes for s in found if s.successes is not None]
    figures["success"] = told if len(told) == len(found) else []
    for name, values in figures.items():
        keys = (name, f"{name}_low", f"{name}_high")
        if not values:
            row |= dict.fromkeys(keys)
            continue
        mean = sum(sum(group) / len(group) for group in values) / len(values)
        low, high = interval(values, redraw_groups=len(values) > 1)
        row |= dict(zip(keys, (mean, low, high), strict=True))
    return row


def _draw(path: Path, rows: list[dict[str, Any]], task: str) -> None:
    figures = [f for f in ("return", "success") if any(row[f] is not None for row in rows[:-1])]
    with panels(path, 1, len(figures)) as axes:
        for axis, figure in zip(axes, figures, strict=True):
            for arm, colour in (("tuned", "tab:blue"), ("scratch", "tab:orange")):
                found = [row for row in rows if row["arm"] == arm]
                if found:
                    counts = [row["episodes"] for row in found]
                    low, high = (
                        [row[f"{figure}_{end}"] for row in found] for end in ("low", "high")
                    )
                    axis.plot(
                        counts, [row[figure] for row in found], "o-", color=colour, label=ARMS[arm]
                    )
                    axis.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
            for arm, style in (("untrained", "--"), ("chance", ":"), ("expert", "-.")):
                level = [row[figure] for row in rows if row["arm"] == arm]
                if level and level[0] is not None:
                    label = ARMS.get(arm, "expert")
                    axis.axhline(level[0], linestyle=style, color="grey", label=label)
            axis.set(xscale="log", xlabel="episodes", title=f"{task}: {figure}")
            counts = sorted({row["episodes"] for row in rows if row["episodes"]})
            axis.set_xticks(counts, [str(count) for count in counts])
            axis.minorticks_off()
        axes[0].legend(frameon=False, fontsize=8)
