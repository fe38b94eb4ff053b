"""3D Slicer's module MONAI Label Reviewer notes its verdict with the label: ``segmentationMeta.status``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msklabel.store.schema import LabelVersion, now

KEY = "segmentationMeta"
_STATES = {"approved": "accepted", "flagged": "rejected", "segmented": "submitted"}
_STATUSES = {"accepted": "approved", "rejected": "flagged", "submitted": "segmented", "reopened": "flagged"}


def state_said(info: Mapping[str, Any]) -> str | None:
    """The review state that a note of the module means; None where it says nothing of it."""
    meta = info.get(KEY)
    status = meta.get("status") if isinstance(meta, Mapping) else None
    return _STATES.get(status) if isinstance(status, str) else None


def reason_said(info: Mapping[str, Any]) -> str:
    """Why, as far as the module's user said."""
    return str(info[KEY].get("comment") or "").strip() or "flagged in 3D Slicer, without a comment"


def note_for(version: LabelVersion, state: str, reason: str | None, who: str | None) -> dict[str, Any]:
    """What the module is to read of a review that was made elsewhere; all of its fields, as it needs them."""
    known = version.info.get(KEY)
    meta = {"level": "", **(known if isinstance(known, Mapping) else {})}
    meta |= {"status": _STATUSES[state], "approvedBy": who or "", "comment": reason or ""}
    return {**meta, "editTime": int(now().timestamp())}
