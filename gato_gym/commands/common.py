"""What the subcommands of ``gato-gym`` share.

* :func:`run_command` -- runs one, and turns what goes wrong into a line and an exit status.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console


def run_command(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, *, stopped: str = ""
) -> int:
    """Run the command that ``arguments`` name.

    Under ``torchrun`` the first process alone prints.

    Args:
        parser: Of subcommands, each with ``run``: a function of its arguments and a console that
            returns an exit status.
        arguments: None takes the process's.
        stopped: Said after Ctrl-C, where the command says nothing itself.

    Returns:
        The command's status; 1 where an error was told, 130 after Ctrl-C.
    """
    import gymnasium as gym

    args = parser.parse_args(arguments)
    console = Console(soft_wrap=True, quiet=os.environ.get("RANK", "0") != "0")
    try:
        status: int = args.run(args, console)
    except KeyboardInterrupt:
        if stopped:
            console.print(stopped)
        return 130
    except (gym.error.Error, ArithmeticError, ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return status
