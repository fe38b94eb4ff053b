"""``/datastore/label``: labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from monailabel.utils.others.generic import get_mime_type

from msklabel.errors import NotFound
from msklabel.serve.context import AsAnnotator, AsReviewer, AsUser, Context, Ctx, author, holder_of
from msklabel.serve.errors import Forbidden
from msklabel.serve.forms import multipart
from msklabel.serve.options import LABEL, check_tag
from msklabel.serve.uploads import read_notes, receive_form
from msklabel.serve.users import User
from msklabel.store.slicer_review import state_said

router = APIRouter(prefix="/datastore", tags=["Datastore"])
_FINAL = "final"


@router.put("/label", summary="Submit a label", openapi_extra=multipart("label"))
async def save_label(request: Request, ctx: Ctx, user: AsAnnotator, image: str, tag: str = _FINAL) -> dict[str, Any]:
    tag = check_tag(tag or _FINAL)
    async with receive_form(request, ctx.settings.max_json_bytes) as form:
        notes = author(user, {key: value for key, value in form.json("params").items() if key in LABEL})
        holder = holder_of(request, ctx, user, notes.get("client_id"))
        file = form.needed("label")
        answer = await run_sync(_save, ctx, image, file, tag, notes, holder, limiter=ctx.submitting)
    if ctx.exchange:
        ctx.exchange.soon()
    ctx.info.forget()
    ctx.measuring.due()
    return answer


def _save(ctx: Context, image: str, file: Path, tag: str, notes: dict[str, Any], holder: str) -> dict[str, Any]:
    version = ctx.store.submit(image, file, tag, notes, holder)
    answer = {**(ctx.app.on_save_label(image, version.image_id) or {}), "image": image, "label": version.image_id}
    return {**answer, "version": version.id, "warnings": version.warnings}


@router.delete("/label", summary="Remove a label")
def remove_label(ctx: Ctx, user: AsReviewer, id: str, tag: str) -> dict[str, Any]:
    ctx.store.remove_label(id, check_tag(tag))
    ctx.info.forget()
    return {}


@router.head("/label", summary="Whether there is such a label")
def check_label(ctx: Ctx, user: AsUser, label: str, tag: str) -> dict[str, Any]:
    _file(ctx, label, tag)
    return {}


@router.get("/label", summary="Download a label")
def get_label(ctx: Ctx, user: AsUser, label: str, tag: str) -> FileResponse:
    path = _file(ctx, label, tag)
    return FileResponse(path, media_type=get_mime_type(str(path)), filename=path.name)


@router.get("/label/info", summary="What is noted about a label")
def get_label_info(ctx: Ctx, user: AsUser, label: str, tag: str) -> dict[str, Any]:
    info: dict[str, Any] = ctx.store.get_label_info(label, check_tag(tag))
    return info


@router.put("/label/info", summary="Note something about a label, such as a review")
async def put_label_info(
    request: Request, ctx: Ctx, user: AsAnnotator, label: str, tag: str, info: Annotated[str, Form()] = "{}"
) -> None:
    await run_in_threadpool(_note, ctx, user, label, tag, await read_notes(request, "info", info))


@router.put("/updatelabelinfo", summary="The same, under its older name", include_in_schema=False)
async def update_label_info(
    request: Request, ctx: Ctx, user: AsAnnotator, label: str, tag: str, params: Annotated[str, Form()] = "{}"
) -> None:
    await run_in_threadpool(_note, ctx, user, label, tag, await read_notes(request, "params", params))


def _note(ctx: Context, user: User, label: str, tag: str, info: dict[str, Any]) -> None:
    if state_said(info) and not user.may("reviewer"):
        raise Forbidden(f"{user.name} has the role {user.role}; to review labels needs reviewer")
    ctx.store.update_label_info(label, check_tag(tag), author(user, info))
    ctx.info.forget()


def _file(ctx: Context, label: str, tag: str) -> Path:
    path = Path(ctx.store.get_label_uri(label, check_tag(tag)))
    if not path.is_file():
        raise NotFound(f"the file of label {label!r} is not there at present")
    return path
