"""`chemomech`: collect the commands, turn bad input into one line and exit code 2."""

import logging
import signal
import sys
from types import FrameType

import typer
from typer.exceptions import TyperException

from chemomech import __version__
from chemomech.cli.compose import compose
from chemomech.cli.demo import demo
from chemomech.cli.doctor import doctor
from chemomech.cli.learn import learn
from chemomech.errors import ConvergenceError, InputError

_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn the chemo-mechanics of phase-transforming solids from microscopy.",
)
for command in (demo, compose, learn, doctor):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"chemomech {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Show the version."),
) -> None:
    logging.basicConfig(stream=sys.stderr, format="chemomech: %(message)s", level=logging.INFO)


def run(arguments: list[str] | None = None) -> None:
    """Entry point of the `chemomech` script; ends the process with 0, or with 2 on bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # --debug is accepted anywhere on the line, because it is added to a command that has just failed.
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        signal.signal(signal.SIGTERM, _terminate)
        code = app(arguments, prog_name="chemomech", standalone_mode=False)
    except (InputError, ConvergenceError, TyperException, MemoryError) as error:
        if debug:
            raise
        text = error.format_message() if isinstance(error, TyperException) else str(error) or "out of memory"
        print(f"chemomech: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        print("chemomech: interrupted; no file was left half-written", file=sys.stderr)
    sys.exit(code or 0)


def _terminate(number: int, frame: FrameType | None) -> None:
    """A queue's time limit ends the process like an error, so that what was being written is cleared away."""
    sys.exit(128 + number)
