"""What is printed for people.

* :func:`new_console` -- a console that prints text as it is.
"""

from __future__ import annotations

from rich.console import Console


def new_console(
    *,
    highlight: bool = True,
    soft_wrap: bool = False,
    quiet: bool = False,
    width: int | None = None,
) -> Console:
    """A console to stdout that takes no text for rich's markup or emoji codes.

    Names of policies, files and environments may contain ``[v2]`` or ``:factory:``; they are
    printed unchanged, in lines and in tables.

    Args:
        highlight: Whether numbers and paths are coloured on a terminal.
        soft_wrap: Whether the terminal wraps long lines, instead of the console.
        quiet: Whether nothing is printed.
        width: Columns; None takes the terminal's.

    Example:
        >>> new_console().print("[v2]:factory:")
        [v2]:factory:
    """
    return Console(
        highlight=highlight,
        soft_wrap=soft_wrap,
        quiet=quiet,
        width=width,
        markup=False,
        emoji=False,
    )
