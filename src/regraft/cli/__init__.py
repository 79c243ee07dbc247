"""The command line: parses, calls a recipe, shows progress. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import sys

from rich.markup import escape

from regraft.cli.app import app, err
from regraft.core.clock import begin_command
from regraft.core.errors import RegraftError, UsageError


def main() -> None:
    """Entry point: errors become one sentence; `--debug` anywhere gives the traceback."""
    begin_command()
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        code = app(standalone_mode=False)  # click gives back the code of typer.Exit
        sys.exit(code if isinstance(code, int) else 0)
    except RegraftError as error:
        if debug:
            raise
        err.print(f"[red]{'Usage' if isinstance(error, UsageError) else 'Error'}:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("Interrupted. The same command takes the run up where it stopped.")
        sys.exit(130)
    except Exception as error:
        code = _click_code(error)
        if code is not None:
            sys.exit(code)
        if debug:
            raise
        err.print(
            f"[red]Unexpected {type(error).__name__}:[/] {escape(str(error))}\nThis is a defect in Regraft; "
            "the same command with --debug shows where."
        )
        sys.exit(1)


def _click_code(error: Exception) -> int | None:
    """Show an error of the command-line parser and give its exit code; None for any other error.

    typer carries a parser of its own beside click's, so the kind is told by what it can do.
    """
    if type(error).__name__ == "Abort":
        return 130
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):
        show()
        return code
    return None
