"""`python -m chemomech` is the command line."""

from chemomech.cli.main import run

run()
