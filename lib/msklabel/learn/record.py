"""What is written down about trainings and versions: JSON in which a number that is none is null."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path
from typing import Any


def read_json(file: Path) -> dict[str, Any]:
    """An object from a file; empty where there is no file, or a damaged one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def to_json(data: Any) -> str:
    """JSON text as it is stored."""
    return json.dumps(data, indent=1)


def rounded(value: float | None, digits: int = 4) -> float | None:
    """A number for a record; None instead of NaN."""
    return None if value is None or isnan(value) else round(value, digits)
