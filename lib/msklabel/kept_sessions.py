"""Scans that clients upload to segment, for an hour: MONAI Label's sessions, whatever a killed server left of them."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from monailabel.utils.sessions import SessionInfo, Sessions

from msklabel.durable import replace_text

logger = logging.getLogger(__name__)


class KeptSessions(Sessions):
    """Sessions of which one that is not whole does not break the others.

    Args:
        folder: Holds a folder for each session.
        expiry_s: Seconds without use after which it is removed.
    """

    def __init__(self, folder: Path, expiry_s: int) -> None:
        super().__init__(str(folder), expiry_s)

    def remove_expired(self) -> int:
        """Remove those that nobody used for their time, and what is left of others; returns how many."""
        folder, removed = Path(self.store_path), 0
        for kept in folder.iterdir() if folder.is_dir() else ():
            session = self.get_session(kept.name, update_ts=False, fetch_cache=False)
            if kept.is_dir() and time.time() > (_ends(session) if session else _changed_s(kept) + self.expiry):
                self.remove_session(kept.name)
                removed += 1
        return removed

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo | None:
        """A session; None where there is none, or none that is whole."""
        try:
            session: SessionInfo | None = super().get_session(session_id, update_ts, fetch_cache)
        except (ValueError, AttributeError, TypeError, FileNotFoundError) as error:
            logger.warning("session %s is passed over: %s", session_id, error)
            return None
        return session

    def _write_meta_info(self, session_id: str, session_info: SessionInfo) -> None:
        replace_text(Path(self.store_path) / session_id / "meta.info", json.dumps(vars(session_info)))


def _ends(session: SessionInfo) -> float:
    return float(session.last_access_ts + session.expiry)


def _changed_s(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another server was first
        return time.time()
