"""Options of a training as clients send them: numbers and switches, which forms give as text; empty is the default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msklabel.errors import UserError

_MOST = 10**9
_MOST_TEXT = 80


def whole(asked: Mapping[str, Any], key: str, default: int, lowest: int = 1, highest: int = _MOST) -> int:
    """A whole number.

    Args:
        asked: What came.
        key: Of the option.
        default: Where it is left out, null or empty.
        lowest: It can be.
        highest: It can be, at most a thousand millions.

    Raises:
        UserError: If it is no whole number from ``lowest`` to ``highest``.
    """
    value = asked.get(key)
    if value is None or value == "":
        return default
    number = None
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        number = int(value) if abs(value) <= _MOST else None
    elif isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,10}\s*", value):
        number = int(value)
    if number is None or not lowest <= number <= highest:
        raise UserError(f"{key}: expected a whole number from {lowest} to {highest}, got {str(value)[:_MOST_TEXT]!r}")
    return number


def switch(asked: Mapping[str, Any], key: str) -> bool:
    """True or false; false where it is left out, null or empty.

    Raises:
        UserError: If it is neither.
    """
    value = asked.get(key)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value is None or value == "" or isinstance(value, bool):
        return bool(value)
    raise UserError(f"{key}: expected true or false, got {str(value)[:_MOST_TEXT]!r}")
