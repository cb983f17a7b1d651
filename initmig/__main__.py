"""Runs the `initmig` command for `python -m initmig`."""

from initmig.cli.process import run

run()
