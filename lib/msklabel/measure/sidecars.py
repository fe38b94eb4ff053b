"""What label files speak of, where something says so: a file beside them, or the store that they come from.

``<scan>.annotated.json`` beside ``<scan>.nii.gz``: ``{"classes": [name, ...], "slices": [index, ...], "axis": 0..2}``,
as with a submission; what is left out means all. A label file of a store is known by its checksum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from msklabel.errors import NotFound, UserError
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.names import without_suffix
from msklabel.measure.report.provenance import sha256
from msklabel.system import System

SUFFIX = ".annotated.json"


def annotated_for(
    file: Path, system: System, shape: tuple[int, ...], of_store: Mapping[str, Annotated] | None = None
) -> Annotated:
    """What a label file speaks of; everything where nothing says otherwise.

    Args:
        file: The label file.
        system: Whose labels they are.
        shape: Voxels along each axis.
        of_store: What a store knows, by checksum of the file.

    Raises:
        UserError: If the file beside it is not what it should be; names it.
    """
    beside = file.with_name(f"{without_suffix(file.name)}{SUFFIX}")
    if beside.is_file():
        from msklabel.store.annotation import read_annotated

        try:
            said = json.loads(beside.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{beside.name} is not valid JSON") from error
        try:
            return read_annotated(said, system, shape)
        except UserError as error:
            raise UserError(f"{beside.name}: {error}") from error
    return of_store.get(sha256(file), Annotated()) if of_store else Annotated()


def partial_labels(state: Path | None, url: str | None = None) -> dict[str, Annotated]:
    """What the labels of a store speak of, by checksum, where that is not everything.

    Args:
        state: Its state folder, with the database as a file.
        url: Of its PostgreSQL database instead, ``postgresql://user@host/name``.

    Raises:
        NotFound: If there is no database, or nothing of msklabel in it.
        Unreachable: If the database does not answer.
        UserError: If the URL is none of PostgreSQL.
    """
    from msklabel.store.annotation import partial
    from msklabel.store.database import Database
    from msklabel.store.transfer import check_current, reached

    file = (state or Path()) / "msklabel.db"
    if url is None and not file.is_file():
        raise NotFound(f"there is no database in {state}; one of PostgreSQL is named by --database")
    database = Database(file, url)
    with reached():
        with database.snapshot() as reading:
            check_current(reading)
        return partial(database)
