"""Tables and plots of studies: CSV always, PNG where matplotlib is installed.

* :func:`write_csv` -- rows of plain values.
* :func:`can_draw`, :func:`panels` -- a figure with several plots.
"""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOT_DRAWN = "matplotlib is not installed, so there will be no plot: pip install 'gato-gym[plot]'"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same keys; numbers with six digits, None as nothing."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    os.replace(temporary, path)


@contextmanager
def panels(path: Path, rows: int, columns: int) -> Iterator[list[Any]]:
    """Axes to draw in, row by row; the PNG is written when the block ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    yield list(figure.subplots(rows, columns, squeeze=False).flat)
    temporary = path.with_name(f".partial-{path.name}")
    figure.savefig(temporary, dpi=90)
    os.replace(temporary, path)
