"""`python -m initmig` is the installed command."""

from initmig.cli.main import run

run()
