"""A run as one self-contained web page: ``report.html``, to open offline or attach to a paper.

* :func:`render_page`, :func:`write_page` -- from a summary to the page; ``benchmarks.run`` writes
  it beside ``summary.json``.
* :class:`MakePage` -- ``python -m benchmarks.report.html FOLDER``, of a recorded run anew.

The page loads nothing: styles, drawings and videos are in it, but for videos that are too large,
which are linked to. Every text is escaped.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from tyro.conf import Positional

from benchmarks import references
from benchmarks.protocol import ALL, Protocol
from benchmarks.report.summary import Summary, summarise
from benchmarks.report.task_summary import TaskSummary
from benchmarks.rules import RULES, VERSION
from benchmarks.statistics.aggregates import Aggregate, Curve, Profile, suite_of
from benchmarks.store.clips import Clip, read_clips
from benchmarks.store.run_store import read_run
from gato_gym.commands.common import Command, Invocation, run_command
from gato_gym.files.atomic_io import write_whole
from gato_gym.files.bounded_io import read_bytes, read_text
from gato_gym.tasks import get_suite, list_suites
from policies.rollout.timing import Costs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "report.html"

_WIDEST = (-0.5, 2.0)
"""Scores that bars show at most; beyond, a bar ends at the edge and a number says how far."""


LARGEST_VIDEO, LARGEST_VIDEOS = 3 * 2**20, 24 * 2**20
"""Bytes of a video, and of all of them, that are put into the page; others are linked to."""


@dataclass(frozen=True)
class Film:
    """A video as the page shows it: ``source`` holds all of it, or is None where it is linked."""

    clip: Clip
    source: str | None
    megabytes: float


@dataclass(frozen=True)
class Scale:
    """Where scores are in a suite's chart, in percent of its width."""

    low: float
    high: float

    @classmethod
    def of(cls, tasks: Sequence[TaskSummary]) -> Scale:
        """One on which random, the expert and, within limits, every interval have room."""
        ends = [end for task in tasks for end in (task.low, task.normalised, task.high)]
        known = [end for end in ends if end is not None]
        return cls(max(_WIDEST[0], min([0.0, *known])), min(_WIDEST[1], max([1.1, *known])))

    def place(self, score: float) -> float:
        """Where a score lies; for one off the scale, the nearest end."""
        inside = min(max(score, self.low), self.high)
        return round(100.0 * (inside - self.low) / (self.high - self.low), 2)

    def beyond(self, score: float) -> str:
        """The side on which a score is off the scale, ``left`` or ``right``, or nothing."""
        return "left" if score < self.low else "right" if score > self.high else ""

    def ticks(self) -> list[float]:
        """Scores to write above the chart."""
        return [step / 2 for step in range(-1, 5) if self.low <= step / 2 <= self.high]


_COLOURS = {"bar": "#3b6fb6", "soft": "#5a6470", "rule": "#d9dee4", "reference": "#b4541a"}
"""Colours of drawings, by the names of ``report.css``, which has others in the dark."""


def render_page(summary: Summary, folder: Path | None = None) -> str:
    """The page of a run, as HTML.

    Args:
        summary: The run's summary.
        folder: The run's folder, where its videos are; None shows none.
    """
    template = template_of("report.html.j2")
    profile = summary.profile
    header, protocol = summary.header, summary.header.protocol
    return template.render(
        summary=summary,
        header=header,
        protocol=protocol,
        policy=Path(str(header.policy.get("name", "?"))).name,
        style=asset("report.css"),
        averages={each.name: each for each in summary.aggregates},
        suites={
            suite: {each.name: each for each in averages}
            for suite, averages in summary.suites.items()
        },
        charts=[
            (suite, Scale.of(tasks), tasks) for suite, tasks in _by_suite(summary.tasks).items()
        ],
        published=references.published_normalised,
        drawings=[_svg(*each) for each in _drawings(profile)] if profile else [],
        profile=profile,
        half=_tasks_above(profile, 0.5),
        flagged=[task for task in summary.tasks if task.flag],
        seeds={task: [key.seed for key in protocol.episodes_of(task)] for task in protocol.tasks},
        played=sum(task.episodes for task in summary.tasks),
        planned=header.episodes,
        own=_measured(protocol.tasks),
        films=_films(summary.clips, folder) if folder else [],
        words=RULES if protocol.current().version == VERSION and protocol.rules else {},
        has_human=any(references.published_normalised(t.task, "human") for t in summary.tasks),
        has_jat=any(references.published_normalised(t.task) for t in summary.tasks),
    )


def template_of(name: str) -> jinja2.Template:
    """A template among the package's assets, with the filters of a page."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": _number, "score": _score, "title": _title}
    return environment.from_string(asset(name))


def write_page(path: Path, summary: Summary) -> None:
    """Write the page of a run, beside its videos, never half of it.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(path, render_page(summary, path.parent))


def _measured(tasks: Iterable[str]) -> list[tuple[str, Protocol]]:
    """The protocols under which random and expert of these tasks' suites were measured."""
    protocols = [
        (suite, references.measured_protocol(suite)) for suite in sorted({*map(suite_of, tasks)})
    ]
    return [(suite, protocol) for suite, protocol in protocols if protocol is not None]


def _films(clips: Sequence[Clip], folder: Path) -> list[Film]:
    films, room = [], LARGEST_VIDEOS
    for clip in clips:
        path = folder / clip.file
        if not path.is_file():
            continue
        size, source = path.stat().st_size, None
        if size <= min(LARGEST_VIDEO, room):
            room -= size
            source = (
                "data:video/mp4;base64," + base64.b64encode(read_bytes(path, largest=size)).decode()
            )
        films.append(Film(clip, source, size / 1e6))
    return films


def _by_suite(tasks: Sequence[TaskSummary]) -> Mapping[str, list[TaskSummary]]:
    groups: dict[str, list[TaskSummary]] = {}
    for task in tasks:
        groups.setdefault(suite_of(task.task), []).append(task)
    return groups


def _drawings(profile: Profile) -> list[tuple[str, Figure]]:
    """Caption and drawing, for episodes and for tasks."""
    return [
        ("Episodes above each score", _drawing(profile, profile.episodes, most=None)),
        ("Tasks above each percentage of expert", _drawing(profile, profile.tasks, profile.count)),
    ]


def _drawing(profile: Profile, curve: Curve, most: int | None) -> Figure:
    """A curve and its interval over the scores, of so many tasks; None for a share."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter

    figure = Figure(figsize=(4, 2.7), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=_COLOURS["soft"], labelsize=9)
    axes.grid(axis="y", color=_COLOURS["rule"], clip_on=False)
    axes.set_xlabel("percentage of expert score", color=_COLOURS["soft"])
    axes.set_ylabel("share of episodes" if most is None else "tasks", color=_COLOURS["soft"])
    axes.set_xlim(profile.thresholds[0], profile.thresholds[-1])
    axes.set_ylim(0, most or 1)
    axes.xaxis.set_major_locator(MultipleLocator(0.25))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=most is not None))
    if most is None:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    colour = _COLOURS["bar"]
    axes.plot(profile.thresholds, curve.value, color=colour, linewidth=1.8, clip_on=False)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(
            profile.thresholds, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0,
            clip_on=False,
        )  # fmt: skip
    expert = _COLOURS["reference"]
    axes.axvline(1.0, color=expert, linestyle="--", linewidth=1, clip_on=False)
    axes.text(1.02, 0.93, "expert", color=expert, fontsize=9, transform=axes.get_xaxis_transform())
    return figure


def _svg(caption: str, figure: Figure) -> tuple[str, str]:
    """Caption, and the drawing in the page's own colours and fonts, as SVG to put into it."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": caption}), io.StringIO() as file:
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=metadata)
        text = file.getvalue()
    text = re.sub(r' id="[\w.]*_\d+"', "", text[text.index("<svg") :])  # those of two would clash
    for name, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    label = f"{caption}, with 95 % interval"
    return caption, text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _tasks_above(profile: Profile | None, score: float) -> int | None:
    if profile is None or score not in profile.thresholds:
        return None
    return round(profile.tasks.value[profile.thresholds.index(score)])


def asset(name: str) -> str:
    """The text of a file among the package's assets."""
    return read_text(Path(str(resources.files("benchmarks.report").joinpath("assets", name))))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 2
    return f"{value:,.{digits}f}".replace("-", "−").replace(",", "\u202f")


def _score(value: Aggregate | float | None) -> str:
    number = value.value if isinstance(value, Aggregate) else value
    return "–" if number is None else f"{number:.3f}".replace("-", "−")


def _title(suite: str) -> str:
    if suite == ALL:
        return "every suite"
    return (get_suite(suite).title if suite in list_suites() else "") or suite


@dataclass(frozen=True)
class MakePage(Command):
    """Make the page of a recorded run anew.

    Attributes:
        folder: What was --output of gato-gym bench.
        output: The page; by default report.html in the folder.
    """

    folder: Positional[Path]
    output: Path | None = None

    def run(self, call: Invocation) -> None:
        output = self.output or self.folder / NAME
        run = read_run(self.folder)
        summary = summarise(
            run.header,
            tuple(run.results.values()),
            tuple(run.failures.values()),
            cost=Costs.of_run(self.folder),
            clips=read_clips(self.folder),
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        write_page(output, summary)
        call.console.print(f"wrote {output}", markup=False, highlight=False)


main = partial(run_command, MakePage, prog="python -m benchmarks.report.html")

if __name__ == "__main__":
    sys.exit(main())
