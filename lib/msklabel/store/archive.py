"""A ZIP file of the finished labels with their images."""

from __future__ import annotations

import json
import os
import tempfile
import time
import weakref
import zipfile
from pathlib import Path
from typing import Any

from msklabel.errors import NotFound
from msklabel.store.core import Store
from msklabel.store.files import storage_full_told
from msklabel.store.labels import FINAL, SUFFIX

_OPENED_S = 60.0


class Archives:
    """Paths of the archives that were handed out, for a server that does not remove them when they are sent.

    They go when this object does, and those of a minute ago with the next one: a file that somebody is being sent is
    open since, and can be read to its end.
    """

    def __init__(self) -> None:
        self._made: dict[Path, float] = {}
        weakref.finalize(self, _remove, self._made, 0.0)

    def add(self, file: Path) -> Path:
        """Remember another one, and remove those that nobody needs any more."""
        _remove(self._made, _OPENED_S)
        self._made[file] = time.monotonic()
        return file


def _remove(made: dict[Path, float], seconds: float) -> None:
    for file, moment in list(made.items()):
        if time.monotonic() - moment >= seconds:
            file.unlink(missing_ok=True)
            made.pop(file, None)


def write_archive(store: Store, record: dict[str, Any], limit: int | None = None) -> Path:
    """Write ``image/<id>…``, ``label/<id>.nii.gz`` and ``metadata.json``.

    Args:
        store: Whose finished labels.
        record: Becomes ``metadata.json``.
        limit: At most so many scans.

    Returns:
        A temporary file; who asked removes it.

    Raises:
        NotFound: If nothing is finished.
        StorageFull: If it does not fit.
    """
    finished = store.labels.current(FINAL)
    if not finished:
        raise NotFound("no label is finished, so there is nothing to pack")
    handle, name = tempfile.mkstemp(prefix="msklabel-", suffix=".zip")
    os.close(handle)
    try:
        with storage_full_told(), zipfile.ZipFile(name, "w", strict_timestamps=False) as archive:
            for version, image in finished[: limit if limit and limit > 0 else None]:
                for file in store.images.files(image.id):
                    archive.write(file, f"image/{file.relative_to(store.studies).as_posix()}")
                archive.write(store.labels.file(version), f"label/{image.id}{SUFFIX}")
            archive.writestr("metadata.json", json.dumps(record))
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)
