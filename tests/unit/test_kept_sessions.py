"""Sessions end after their time, also those of the server before, and one that is not whole breaks no other."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from msklabel.kept_sessions import KeptSessions

HALF = "11111111-e6d0-11f1-8490-02fc00000001"


def added(sessions: KeptSessions, folder: Path) -> str:
    scan = folder / "scan.nii.gz"
    scan.write_bytes(b"scan")
    session_id, _ = sessions.add_session(str(scan))
    return str(session_id)


@pytest.mark.parametrize("left", [None, "", "{"])
def test_what_a_killed_server_left_of_a_session_breaks_no_other_and_goes_in_time(
    tmp_path: Path, left: str | None
) -> None:
    half = tmp_path / "sessions" / HALF
    half.mkdir(parents=True)
    if left is not None:
        (half / "meta.info").write_text(left)
    sessions = KeptSessions(tmp_path / "sessions", 3600)
    assert sessions.get_session(HALF) is None
    whole = added(sessions, tmp_path)
    sessions.remove_expired()
    assert half.is_dir()  # it may be that another server writes it this moment
    os.utime(half, (0, 0))
    assert sessions.remove_expired() == 1
    assert not half.is_dir()
    assert sessions.get_session(whole)


def test_sessions_of_the_server_before_expire_and_live_on_when_they_are_used(tmp_path: Path) -> None:
    before = KeptSessions(tmp_path / "sessions", 3600)
    old, used = added(before, tmp_path), added(before, tmp_path)
    for session_id in (old, used):
        file = tmp_path / "sessions" / session_id / "meta.info"
        known = json.loads(file.read_text())
        file.write_text(json.dumps({**known, "last_access_ts": int(time.time()) - 4000}))
    after = KeptSessions(tmp_path / "sessions", 3600)
    assert after.get_session(used, update_ts=True)
    assert after.remove_expired() == 1
    assert [path.name for path in (tmp_path / "sessions").iterdir()] == [used]
