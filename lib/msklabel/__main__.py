"""``python -m msklabel``: the command line."""

from msklabel.cli import main

main()
