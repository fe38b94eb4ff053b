"""Image ids and label tags come from outside and become paths: what they may look like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msklabel.errors import UserError

LABELS = "labels"
HEIGHT = "height_cm"
_LEAST_CM, _MOST_CM = 20, 280
_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PART_BYTES = 200  # file systems take 255; room for a suffix and a temporary name
_ID_BYTES = 1024


def is_image_id(image_id: Any) -> bool:
    """Whether an id is a relative path of plain names that lies inside the studies folder, outside our own folders."""
    if not isinstance(image_id, str) or not image_id.isprintable() or "\\" in image_id:
        return False
    try:
        sizes = [len(part.encode()) for part in image_id.split("/")]
    except UnicodeEncodeError:
        return False
    if not all(0 < size <= _PART_BYTES for size in sizes) or sum(sizes) > _ID_BYTES:
        return False
    parts = image_id.split("/")
    return not any(part.startswith(".") for part in parts) and not (len(parts) > 1 and parts[0].lower() == LABELS)


def checked_tag(tag: Any) -> str:
    """The tag as plain text.

    Raises:
        UserError: If it is anything but 1 to 64 letters, digits, ``_`` or ``-``.
    """
    tag = getattr(tag, "value", tag)
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise UserError(f"label tag {str(tag)[:80]!r}: expected 1 to 64 letters, digits, '_' or '-'")
    return tag


def checked_info(info: Any) -> dict[str, Any]:
    """Facts from outside as a plain JSON object; nothing is an empty one.

    Raises:
        UserError: If it is anything else.
    """
    if info is not None and not isinstance(info, Mapping):
        raise UserError(f"info: expected a JSON object, got {type(info).__name__}")
    return dict(plain(dict(info or {})))


def checked_image_info(info: Any) -> dict[str, Any]:
    """Facts about an image from outside; what quantities are divided by has to be a number.

    Raises:
        UserError: If they are no JSON object, or the height is none of a person.
    """
    facts = checked_info(info)
    height = facts.get(HEIGHT)
    if height is not None and (isinstance(height, bool | str | list | dict) or not _LEAST_CM <= height <= _MOST_CM):
        said = f"{HEIGHT}: expected a number of cm from {_LEAST_CM} to {_MOST_CM}"
        raise UserError(f"{said}, got {str(height)[:80]!r}")
    return facts


def plain(value: Any) -> Any:
    """The same value in what JSON has: text keys, lists, numbers; not-a-number and infinity become null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(getattr(value, "value", value)).encode(errors="replace").decode()
