"""Which scans can be a system's, as far as their kind and their channels are known; and what of them has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any

from sqlalchemy import String, bindparam, cast, select

from msklabel.imaging.channels import CHANNELS as DIXON
from msklabel.imaging.names import is_image
from msklabel.store.database import Database
from msklabel.store.images import CHANNELS, UNREADABLE
from msklabel.store.schema import Image
from msklabel.system import System

_KINDS = ("CT", "MR", "CR", "DX")
_NOTHING = "{}"
_FACTS = (Image.id, Image.patient, Image.site, Image.modality, Image.file, Image.present, Image.changed)
_CHANGED = (
    select(*_FACTS, cast(Image.info, String)).where(Image.changed > bindparam("since_us")).order_by(Image.changed)
)


@dataclass(slots=True)
class ChangedImage:
    """What is known of an image, empty where it is not, whether it can be read, and when that was written (µs).

    Attributes:
        unfit: Names of the systems that cannot use it.
    """

    id: str
    patient: str
    site: str
    present: bool
    changed_us: int
    unfit: frozenset[str] = frozenset()


def patient_of(image_id: str, patient: str | None, info: Mapping[str, Any]) -> str:
    """The patient by what was noted, else by the file, else each image is taken for a patient of its own."""
    return str(info.get("patient") or info.get("PatientID") or patient or image_id)


def reasons_against(image: Image, systems: Mapping[str, System]) -> dict[str, str]:
    """The systems that cannot use an image, each with a sentence; one of which nothing is known may be any system's."""
    kind = str(image.info.get("modality") or image.modality or "")
    return _against(kind, image.info.get(CHANNELS), image.file or "", systems.values())


def changed_images(database: Database, since_us: int, systems: Mapping[str, System]) -> list[ChangedImage]:
    """What is known of the images that were written after an instant, in order of that.

    Read as bare columns: whole objects of ten thousand images take ten times as long.

    Args:
        database: Where they are recorded.
        since_us: µs since 1970; -1 for all.
        systems: Those that are served.
    """
    with database.read() as session:
        rows = session.execute(_CHANGED, {"since_us": since_us}).all()
    found = []
    for image_id, patient, site, modality, file, present, changed, text in rows:
        info = {} if text == _NOTHING else loads(text)
        kind, channels = str(info.get("modality") or modality or ""), info.get(CHANNELS)
        against = _against(kind, channels, file or "", systems.values()) if kind or channels else {}
        facts = patient_of(image_id, patient, info), str(info.get("site") or site or "")
        readable = present and UNREADABLE not in info
        found.append(ChangedImage(image_id, *facts, readable, changed, frozenset(against)))
    return found


def _against(kind: str, channels: Any, file: str, systems: Iterable[System]) -> dict[str, str]:
    if not kind and isinstance(channels, list) and len(DIXON.keys() & channels) > 1:
        kind = "MR"  # of which NIfTI says nothing
    found = {}
    for system in systems:
        if kind in _KINDS and kind not in system.modality:
            found[system.name] = f"{system.name} is for {' and '.join(system.modality)}, this is {kind}"
        elif lacking := _lacking(system.channels, channels, is_image(Path(file))):
            found[system.name] = f"{system.name} needs {lacking}"
    return found


def _lacking(wanted: Sequence[str], found: Any, files: bool) -> str:
    """What a system needs and does not find, as far as that is known.

    Args:
        wanted: Its channels.
        found: Names of the channels of an image, or how many it has.
        files: Whether channels with names are files of their own, of which a system of one channel takes the first.
    """
    needed = f"{len(wanted)} channel{'s' * (len(wanted) > 1)} ({', '.join(wanted)}), this has"
    if isinstance(found, int):
        return "" if found == len(wanted) else f"{needed} {found}"
    if not isinstance(found, list):
        return ""
    if len(wanted) == 1:
        return "" if files else f"{needed} {', '.join(found)}"
    made = {"in_phase", "out_of_phase"} if {"water", "fat"} <= set(found) else set()
    return "" if set(wanted) <= {*found, *made} else f"{needed} {', '.join(found)}"
