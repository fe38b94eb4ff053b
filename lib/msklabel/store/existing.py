"""Labels that lie in ``<studies>/labels`` and are not known yet, as an existing MONAI Label folder has them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msklabel.errors import UserError
from msklabel.imaging.names import is_image, without_suffix
from msklabel.store.labels import FINAL, ORIGINAL
from msklabel.store.names import LABELS
from msklabel.store.view import IMPORTED, knows

if TYPE_CHECKING:
    from msklabel.store.core import Store

logger = logging.getLogger(__name__)
_RECORD = "datastore_v2.json"


def import_folder(store: Store) -> int:
    """Store the labels that users put into ``labels/final`` and ``labels/original`` as versions.

    The files are read, never changed. Who made them and for which model is taken from ``datastore_v2.json`` where that
    says so. A file that cannot be a label of its scan is left out with a warning.

    Returns:
        The number of new versions.
    """
    record: dict[str, Any] | None = None
    number = 0
    for tag in (ORIGINAL, FINAL):
        folder = store.studies / LABELS / tag
        known = store.labels.by_image(tag)
        for file in sorted(path for path in folder.rglob("*") if is_image(path) and not path.name.startswith(".")):
            image_id = without_suffix(file.relative_to(folder).as_posix())
            if knows(file, known.get(image_id, []), store.labels):
                continue
            record = _read_record(store.studies / _RECORD) if record is None else record
            try:
                _import(store, file, image_id, tag, record)
                number += 1
            except (UserError, OSError) as error:
                logger.warning("label %s was not imported: %s", file, error)
    if number:
        logger.info("%d labels imported from %s", number, store.studies / LABELS)
    return number


def _import(store: Store, file: Path, image_id: str, tag: str, record: dict[str, Any]) -> None:
    facts = file.stat()
    source = {"file": file.name, "size_bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    info = {**_noted(record, image_id, tag), IMPORTED: source}
    if info.get("model") not in store.models:
        info.pop("model", None)  # another server's model; the label names decide
    store.labels.add(store.check(image_id, file, tag, info, origin="imported"), once=True)


def _noted(record: dict[str, Any], image_id: str, tag: str) -> dict[str, Any]:
    """What the record says about a label: ``objects.<image>.labels.<tag>.info``."""
    value: Any = record
    for key in ("objects", image_id, "labels", tag, "info"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _read_record(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read, so authors of imported labels are not known: %s", file, error)
        return {}
    return record if isinstance(record, dict) else {}
