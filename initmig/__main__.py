"""Runs the `initmig` command for `python -m initmig`."""

from initmig.cli.main import run

run()
