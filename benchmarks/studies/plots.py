"""Tables and plots of studies, as CSV and PNG.

* :func:`write_csv` -- rows of plain values.
* :func:`fill_page` -- a table between two comments of a page; :func:`check_page`, before the work.
* :func:`panels` -- a figure with several plots.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gato_gym.files.atomic_io import appearing_file
from gato_gym.files.bounded_io import read_text


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same keys; numbers with six digits, None as nothing."""
    with appearing_file(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def fill_page(page: Path, mark: str, table: str) -> None:
    """Write a table into a page, between ``<!-- mark: begin -->`` and ``<!-- mark: end -->``.

    Raises:
        ValueError: The page has no such place.
    """
    before, after = _around(page, mark)
    page.write_text(f"{before}\n{table}\n{after}")


def check_page(page: Path, *marks: str) -> None:
    """Refuse a page without a place for the tables, which would come to light after hours of work.

    Raises:
        ValueError: As :func:`fill_page` does; also where there is no page.
    """
    if not page.is_file():
        raise ValueError(
            f"{page} is not there: expected the page that is to show the table, as in a clone of "
            "the repository"
        )
    for mark in marks:
        _around(page, mark)


def _around(page: Path, mark: str) -> tuple[str, str]:
    """What is before and after the table's place, with the comments around it."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    text = read_text(page)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page} has no place for the table: expected {begin} and {end} once each")
    before, rest = text.split(begin)
    return before + begin, end + rest.split(end)[1]


@contextmanager
def panels(path: Path, rows: int, columns: int) -> Iterator[list[Any]]:
    """Axes to draw in, row by row; the PNG is written when the block ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    yield list(figure.subplots(rows, columns, squeeze=False).flat)
    with appearing_file(path) as partial:
        figure.savefig(partial, dpi=90, format=path.suffix[1:])
