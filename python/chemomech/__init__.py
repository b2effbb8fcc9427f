"""Chemo-mechanics of battery particles: learn it from correlative microscopy, simulate with what was learned."""

from importlib.metadata import version

__version__ = version("chemomech")
