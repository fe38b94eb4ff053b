"""Sessions: scans that a client uploads to segment, which do not join the datastore."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from monailabel.utils.sessions import SessionInfo, Sessions

from msklabel.errors import NotFound
from msklabel.serve.context import Context


def find_session(ctx: Context, session_id: str, touch: bool = False) -> SessionInfo:
    """A session that has not expired.

    Args:
        ctx: The server.
        session_id: Its id, a UUID.
        touch: Let it live longer.

    Raises:
        NotFound: If there is none.
    """
    sessions: Sessions = ctx.app.sessions()
    try:
        known = str(uuid.UUID(session_id)) == session_id
    except ValueError:
        known = False
    session: SessionInfo | None = sessions.get_session(session_id, update_ts=touch) if known else None
    if session is None:
        raise NotFound(f"there is no session {session_id[:100]!r}; it may have expired")
    return session


def describe_session(session: SessionInfo, local: bool) -> dict[str, Any]:
    """A session as clients of MONAI Label know it; its place on this machine only for clients on it."""
    described: dict[str, Any] = session.to_json()
    if not local:
        described |= {"path": "", "image": Path(session.image).name}
    return described
