"""Copy all that is kept, put it back, and check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from msklabel.cli.shared import State, Studies, console, errors

Database = Annotated[
    str | None,
    typer.Option(
        envvar="MSKLABEL_DATABASE",
        help="URL of a PostgreSQL database, postgresql://user@host/name; a file in the state folder by default. "
        "A password is better kept in ~/.pgpass than given here.",
    ),
]


def backup(
    target: Annotated[Path, typer.Argument(help="Folder of the backup; an older one is brought up to date.")],
    studies: Studies,
    state: State = None,
    database: Database = None,
) -> None:
    """Copy database, labels and models of a studies folder, while the server runs; not the images."""
    from msklabel.store.backup import back_up

    with Progress(console=console, transient=True) as bar:
        number = back_up(state or studies / ".msklabel", target, _Told(bar, "copying labels"), database)
    console.print(f"{number} labels with their history are in {target}", highlight=False, markup=False)


def restore(
    source: Annotated[Path, typer.Argument(help="A backup.")],
    studies: Studies,
    state: State = None,
    database: Database = None,
) -> None:
    """Put a backup in place; what was there is kept beside. Stop the server first.

    A PostgreSQL database must be empty (createdb NAME): no row of another one is ever overwritten.
    """
    from msklabel.store import backup as backups

    place = state or studies / ".msklabel"
    with Progress(console=console, transient=True) as bar:
        former = backups.restore(source, place, _Told(bar, "copying labels"), database)
    console.print(f"{place} is as it was when {source} was made", highlight=False, markup=False)
    if former:
        console.print(f"what was there before is in {former}", highlight=False, markup=False)


def verify(studies: Studies, state: State = None, database: Database = None) -> None:
    """Check the database, and every label file against its checksum; exit status 1 if something is wrong."""
    from msklabel.store import backup as backups

    with Progress(console=console, transient=True) as bar:
        checked = backups.verify(state or studies / ".msklabel", _Told(bar, "reading labels"), database)
    for problem in checked.problems:
        errors.print(problem, style="red", highlight=False, markup=False)
    if checked.problems:
        raise typer.Exit(1)
    console.print(f"{checked.labels} label files and the database are as they were written", highlight=False)


class _Told:
    """Shows what a long work says of its progress."""

    def __init__(self, bar: Progress, what: str) -> None:
        self._bar = bar
        self._task = bar.add_task(what, total=None)

    def __call__(self, done: int, of_all: int) -> None:
        self._bar.update(self._task, completed=done, total=of_all)
