"""Copies of all that is kept, made while others use it; put back, and checked.

Label files and model versions never change once they are there, so that copying them needs no pause. The database is
copied first, as it is at one instant: every label that it records is a file by then. In a backup it is a SQLite file,
also where a PostgreSQL is used (see :mod:`msklabel.store.transfer`).
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from msklabel.durable import replace_text, sha256_of
from msklabel.errors import Conflict, NotFound, UserError
from msklabel.store.database import Database, copy_database
from msklabel.store.files import copy_whole, storage_full_told
from msklabel.store.jobs import Jobs
from msklabel.store.labels import SUFFIX
from msklabel.store.presence import PRESENCE, alone
from msklabel.store.schema import REVISIONS, LabelVersion, now
from msklabel.store.transfer import check_current, copy_to_file, fill, reached, unreadable

DATABASE = "msklabel.db"
_RECORD = "backup.json"
_MODELS = "models"
_SUFFIXES = tuple(f"-{number}" for number in range(2, 100))  # where two are put back within a second
_RUNNING = "training"  # folder that a training is still writing

Progress = Callable[[int, int], None]


@dataclass
class Checked:
    """What a check of a state folder found.

    Attributes:
        labels: Number of label files that are recorded.
        problems: A sentence for each thing that is wrong.
    """

    labels: int = 0
    problems: list[str] = field(default_factory=list)


def back_up(state: Path, target: Path, progress: Progress, database: str | None = None) -> int:
    """Copy database, labels and models; a backup that is there already is brought up to date.

    Args:
        state: The state folder; a server may use it.
        target: Folder of the backup.
        progress: Told the number of label files that are done, and of all.
        database: URL of the PostgreSQL database that is used instead of a file in the state folder.

    Returns:
        The number of labels.

    Raises:
        NotFound: If there is no database.
        Unreachable: If a PostgreSQL does not answer.
        UserError: If the target lies in the state folder, or is a folder with something else in it.
        Conflict: If a label file is damaged, or the backup that is there holds labels that the database does not
            record; it is still whole then.
        StorageFull: If it does not fit.
    """
    if not database:
        _check_file(state)
    if target.resolve().is_relative_to(state.resolve()):
        raise UserError(f"{target} lies in the state folder; give a place of its own, best on another disk")
    newer = target / f"{DATABASE}.new"  # there if a first backup was cut off
    ours = (target / _RECORD).is_file() or newer.is_file()
    if target.is_dir() and any(target.iterdir()) and not ours:
        raise UserError(f"{target} holds something else; give an empty folder or an older backup")
    with storage_full_told():
        (target / "labels").mkdir(parents=True, exist_ok=True)
        rows: dict[str, int] = {}
        if database:
            with reached():
                rows = copy_to_file(Database(newer, database), newer)
        else:
            copy_database(state / DATABASE, newer)
        if foreign := _recorded(target / DATABASE) - _recorded(newer):
            newer.unlink()
            raise Conflict(
                f"{target} holds {len(foreign)} label(s) that are not known here: it is a backup of other studies, or "
                "a later one of these; give a folder of its own"
            )
        number = _copy_labels(newer, state / "labels", target / "labels", progress)
        _copy_models(state / _MODELS, target / _MODELS)
        newer.replace(target / DATABASE)
        record = {"labels": number, "schema": REVISIONS[-1], "created": now().isoformat(), "rows": rows}
        replace_text(target / _RECORD, json.dumps(record))
    return number


def restore(source: Path, state: Path, progress: Progress, database: str | None = None) -> Path | None:
    """Put a backup in place of a state folder.

    Args:
        source: The backup.
        state: The state folder; what is there is kept beside, or in it where it is a volume of a container.
        progress: As for :func:`back_up`.
        database: URL of an empty PostgreSQL database to put the rows into, instead of a file in the state folder.

    Returns:
        Where the former state folder is now; None if there was none.

    Raises:
        NotFound: If the source is no complete backup.
        Conflict: If a server uses the state folder, a label file of the backup is damaged, or the database is not
            empty; then nothing is changed.
        Unreachable: If a PostgreSQL does not answer.
        StorageFull: If it does not fit.
    """
    if not (source / _RECORD).is_file():
        raise NotFound(f"{source} is no complete backup; msklabel backup makes one")
    with alone(state / PRESENCE) if state.is_dir() else nullcontext(True) as free:
        if not free:
            raise Conflict(f"a server uses {state}: stop it first")
        coming = state / ".restoring" if _is_mounted(state) else state.with_name(f"{state.name}.restoring")
        shutil.rmtree(coming, ignore_errors=True)
        try:
            return _restore(source, state, coming, progress, database)
        finally:
            shutil.rmtree(coming, ignore_errors=True)


def _restore(source: Path, state: Path, coming: Path, progress: Progress, database: str | None) -> Path | None:
    with storage_full_told():
        (coming / "labels").mkdir(parents=True)
        copy_database(source / DATABASE, coming / DATABASE)
        _copy_labels(coming / DATABASE, source / "labels", coming / "labels", progress)
        _copy_models(source / _MODELS, coming / _MODELS)
    if not database:
        return _put_in_place(coming, state)
    rows, target = Database(coming / DATABASE), Database(coming / DATABASE, database)
    with reached():
        rows.create()  # an older backup becomes one of today, here and not where it lies
        Jobs(rows).lose_running((), alone=True)  # those that ran when it was made
        target.create()
        with target.engine.execution_options(writes=True).begin() as writing:
            fill(rows, writing)
            rows.engine.dispose()
            for file in coming.glob(f"{DATABASE}*"):
                file.unlink()
            return _put_in_place(
                coming, state
            )  # before the rows count: if this fails, they do not, and it can be again


def _put_in_place(coming: Path, state: Path) -> Path | None:
    mounted, former = _is_mounted(state), None
    if state.exists():
        stem = state / ".before" if mounted else state.with_name(f"{state.name}.before")
        names = (stem.with_name(f"{stem.name}-{now():%Y%m%d-%H%M%S}{suffix}") for suffix in ("", *_SUFFIXES))
        former = next(name for name in names if not name.exists())
    if former is None or not mounted:
        if former:
            state.rename(former)
        coming.rename(state)
        return former
    former.mkdir()
    for entry in list(state.iterdir()):
        if entry not in (former, coming) and not entry.name.startswith(stem.name) and entry.name != PRESENCE:
            entry.rename(former / entry.name)
    for entry in list(coming.iterdir()):
        entry.rename(state / entry.name)
    if any(former.iterdir()):
        return former
    former.rmdir()
    return None


def _is_mounted(state: Path) -> bool:
    """Whether the folder is a volume of a container, which cannot be renamed, or nothing may be written beside it."""
    if not state.is_dir():
        return False
    if state.is_mount() or not os.access(state.resolve().parent, os.W_OK):
        return True
    with suppress(OSError):  # a folder of the same disk that is mounted here looks like any other
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        return str(state.resolve()).replace(" ", "\\040") in {line.split()[4] for line in mounts}
    return False


def verify(state: Path, progress: Progress, database: str | None = None) -> Checked:
    """Read every label file and compare its checksum; check the database itself.

    Args:
        state: The state folder, or a backup.
        progress: As for :func:`back_up`.
        database: As for :func:`back_up`.

    Raises:
        NotFound: If there is no database.
        Unreachable: If a PostgreSQL does not answer.
    """
    checked = Checked()
    if database:
        with reached():
            digests = _digests_of(Database(state / DATABASE, database), checked)
        return _check_files(state, digests, checked, progress)
    _check_file(state)
    try:
        with closing(sqlite3.connect(f"file:{state / DATABASE}?mode=ro", uri=True)) as file:
            found = [str(row[0]) for row in file.execute("PRAGMA integrity_check(10)")]
        checked.problems += [f"database: {line}" for line in found if line != "ok"]
        digests = _digests(state / DATABASE)
    except sqlite3.DatabaseError as error:
        checked.problems.append(f"database: {error}")
        return checked
    return _check_files(state, digests, checked, progress)


def _check_files(state: Path, digests: list[str], checked: Checked, progress: Progress) -> Checked:
    checked.labels = len(digests)
    for number, digest in enumerate(digests, start=1):
        if problem := _problem(state / "labels" / f"{digest}{SUFFIX}", digest):
            checked.problems.append(problem)
        progress(number, len(digests))
    return checked


def _digests_of(database: Database, checked: Checked) -> list[str]:
    """Checksums that a PostgreSQL records; what of it cannot be read is among the problems."""
    with database.snapshot() as reading:
        check_current(reading)
    checked.problems += unreadable(database)
    with database.snapshot() as reading:
        found = reading.scalars(select(LabelVersion.sha256).distinct().order_by(LabelVersion.sha256))
        return [str(digest) for digest in found]


def _check_file(state: Path) -> None:
    if not (state / DATABASE).is_file():
        raise NotFound(f"there is no database in {state}; where it is a PostgreSQL, give its address by --database")


def _copy_labels(database: Path, source: Path, target: Path, progress: Progress) -> int:
    digests = _digests(database)
    for number, digest in enumerate(digests, start=1):
        file, copy = source / f"{digest}{SUFFIX}", target / f"{digest}{SUFFIX}"
        if not copy.is_file() or sha256_of(copy) != digest:
            if problem := _problem(file, digest):
                raise Conflict(f"{problem}; msklabel verify lists all that is wrong")
            copy_whole(file, copy, replace=True)
        progress(number, len(digests))
    return len(digests)


def _copy_models(source: Path, target: Path) -> None:
    """Versions as they are; those that were published meanwhile come with the next backup."""
    for file in sorted(_files(source)):
        copy = target / file.relative_to(source)
        with suppress(FileNotFoundError):  # gone since; versions stay
            facts = file.stat()
            known = copy.stat() if copy.is_file() else None
            if known is None or (known.st_size, known.st_mtime_ns) != (facts.st_size, facts.st_mtime_ns):
                copy_whole(file, copy, replace=True)


def _files(folder: Path) -> Iterator[Path]:
    """All but what is being written: that lies in a running training's folder, or its name begins with a dot."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != _RUNNING and not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _digests(database: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("SELECT DISTINCT sha256 FROM label_version ORDER BY sha256")]


def _recorded(database: Path) -> set[tuple[int, str]]:
    """Numbers and checksums of the labels of a backup, which are never removed; none where it cannot be read."""
    if not database.is_file():
        return set()
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return set(connection.execute("SELECT id, sha256 FROM label_version"))
    return set()


def _problem(file: Path, digest: str) -> str | None:
    if not file.is_file():
        return f"label file {file.name} is missing"
    return None if sha256_of(file) == digest else f"label file {file.name} is damaged: its checksum is another"
