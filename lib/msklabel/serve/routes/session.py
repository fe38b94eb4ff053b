"""``/session/``: scans that do not join the datastore."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from monailabel.utils.others.generic import get_mime_type
from monailabel.utils.sessions import SessionInfo, Sessions

from msklabel.errors import UserError
from msklabel.imaging.names import plain_name
from msklabel.imaging.read import read_scan
from msklabel.serve.context import AsUser, Context, Ctx, holder_of, renew_lease
from msklabel.serve.forms import multipart
from msklabel.serve.received import checked_file, checked_series
from msklabel.serve.sessions import describe_session, find_session
from msklabel.serve.uploads import receive_form

router = APIRouter(prefix="/session", tags=["Session"])


@router.put("/", summary="Upload a scan to segment", openapi_extra=multipart("files", params=False, several=True))
async def create_session(
    request: Request, ctx: Ctx, user: AsUser, uncompress: bool = False, expiry: int = 0
) -> dict[str, Any]:
    if uncompress:
        raise UserError("uncompress: archives are not unpacked here; send the files of a series one by one in 'files'")
    async with receive_form(request, ctx.settings.max_json_bytes) as form:
        form.needed("files")
        session_id, session = await run_in_threadpool(_create, ctx, form.files["files"], expiry)
    await run_in_threadpool(renew_lease, ctx, holder_of(request, ctx, user))
    return {"session_id": session_id, "session_info": describe_session(session, ctx.is_local(request))}


@router.get("/{session_id}", summary="A session, or its image")
def get_session(
    request: Request, session_id: str, ctx: Ctx, user: AsUser, update_ts: bool = False, image: bool = False
) -> Response:
    session = find_session(ctx, session_id, update_ts)
    if not image:
        return JSONResponse(describe_session(session, ctx.is_local(request)))
    path = Path(session.image)
    if path.is_dir():
        raise UserError(f"session {session_id} holds the files of a series, which are not sent back")
    return FileResponse(path, media_type=get_mime_type(str(path)), filename=plain_name(path.name))


@router.delete("/{session_id}", summary="Remove a session")
def remove_session(request: Request, session_id: str, ctx: Ctx, user: AsUser) -> dict[str, Any]:
    session = find_session(ctx, session_id)
    ctx.app.sessions().remove_session(session_id)
    return describe_session(session, ctx.is_local(request))


def _create(ctx: Context, files: list[Path], expiry: int) -> tuple[str, SessionInfo]:
    """Check that the files are one scan, then keep them."""
    ctx.app.cleanup_sessions()
    scan = checked_file(files[0]) if len(files) == 1 else checked_series(_gather(files))
    read_scan(scan)
    sessions: Sessions = ctx.app.sessions()
    before = set(_ids(sessions))
    try:
        session_id, session = sessions.add_session(str(scan), expiry)
    except OSError:
        for session_id in set(_ids(sessions)) - before:
            if not (Path(sessions.store_path) / session_id / "meta.info").is_file():
                sessions.remove_session(session_id)
        raise
    return session_id, session


def _gather(files: list[Path]) -> Path:
    """The files in one folder, in the order in which they came, whatever they were called."""
    folder = files[0].parent.parent / "series"
    folder.mkdir()
    for number, file in enumerate(files):
        shutil.move(file, folder / f"{number:05d}-{file.name}")
    return folder


def _ids(sessions: Sessions) -> list[str]:
    folder = Path(sessions.store_path)
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []
