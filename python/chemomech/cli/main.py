"""`chemomech`: collect the commands, turn bad input into one line and exit code 2."""

import logging
import signal
import sys

import typer
from typer.exceptions import TyperException

from chemomech import __version__
from chemomech.cli.compose import compose
from chemomech.cli.contrast import contrast
from chemomech.cli.demo import demo
from chemomech.cli.doctor import doctor
from chemomech.cli.kinetics import kinetics
from chemomech.cli.learn import learn
from chemomech.cli.line_profile import line_profile
from chemomech.cli.void import void
from chemomech.errors import ConvergenceError, InputError
from chemomech.parallel import launch
from chemomech.progress import end_on_signal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn the chemo-mechanics of phase-transforming solids from microscopy.",
)
for command in (demo, compose, learn, kinetics, void, contrast, line_profile, doctor):
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
    logging.basicConfig(stream=sys.stderr, format="chemomech: %(message)s")
    logging.getLogger("chemomech").setLevel(logging.INFO)  # other libraries keep theirs to themselves


def run(arguments: list[str] | None = None) -> None:
    """Entry point of the `chemomech` script; ends the process with 0, or with 2 on bad input.

    Of the processes that mpiexec starts, one runs the command and gives the others work.
    """
    given = sys.argv[1:] if arguments is None else arguments
    former = {number: signal.signal(number, end_on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = launch.run(lambda: _run(given))
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    # --debug is accepted anywhere on the line, because it is added to a command that has just failed.
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return app(arguments, prog_name="chemomech", standalone_mode=False) or 0
    except (InputError, ConvergenceError, TyperException, MemoryError) as error:
        if debug:
            raise
        text = error.format_message() if isinstance(error, TyperException) else str(error) or "out of memory"
        if text:  # without a command the help was the answer
            print(f"chemomech: {' '.join(text.split())}", file=sys.stderr)
        return 2
    except Exception as error:
        if debug or not launch.ranks():
            raise  # a bug shows itself, but not once for every process
        print(f"chemomech: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except SystemExit as end:
        if end.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            print("chemomech: interrupted; no file was left half-written", file=sys.stderr)
        return end.code if isinstance(end.code, int) else 0
