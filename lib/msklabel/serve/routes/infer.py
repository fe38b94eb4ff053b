"""``/infer/``: segment one scan now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import Future
from enum import Enum
from pathlib import Path
from typing import Any

import pydicom
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from monailabel.utils.others.generic import get_mime_type
from requests_toolbelt import MultipartEncoder

from msklabel.errors import UserError
from msklabel.predict.ahead import name_of_result
from msklabel.serve.context import AsUser, Context, Ctx, holder_of, renew_lease
from msklabel.serve.dicom_seg import dicom_sources, segmentation_file
from msklabel.serve.errors import ClientGone, Forbidden
from msklabel.serve.forms import multipart
from msklabel.serve.options import INFER, check_known, choose_options
from msklabel.serve.received import checked_file
from msklabel.serve.sessions import find_session
from msklabel.serve.uploads import Form, receive_form

router = APIRouter(prefix="/infer", tags=["Infer"])


class Output(str, Enum):
    """What an inference answers: params and image in one form, one of them alone, or the image as DICOM SEG."""

    all = "all"
    image = "image"
    json = "json"
    dicom_seg = "dicom_seg"


@router.post("/{model}", summary="Segment a scan", openapi_extra=multipart(optional=("file", "label")))
async def infer(
    request: Request,
    model: str,
    ctx: Ctx,
    user: AsUser,
    image: str = "",
    session_id: str = "",
    output: Output = Output.all,
) -> Response:
    models = (await ctx.info.latest())["models"]
    check_known(model, models, "model")
    async with _form(request, ctx) as form:
        options = choose_options(form.json("params"), INFER, models[model].get("config") or {})
        if options.get("save_label") and not user.may("annotator"):
            raise Forbidden(f"{user.name or 'this client'} has the role {user.role}; save_label needs annotator")
        holder = holder_of(request, ctx, user, options.get("client_id"))
        await run_in_threadpool(renew_lease, ctx, holder, image)
        work = {**options, "model": model, **await run_in_threadpool(_input, ctx, form, image, session_id)}
        sources = await run_in_threadpool(_sources, ctx, work) if output is Output.dicom_seg else []
        ctx.prefetch.answered(options)
        ready = await run_in_threadpool(ctx.app.ready, work)
        result = ready or await _finish(request, ctx.inferences.submit(work))
        if options.get("save_label"):
            ctx.info.forget()
        if output is Output.dicom_seg:
            return await run_in_threadpool(_segmentation, ctx, result, sources, model, user.name)
        return await run_in_threadpool(_answer, result, output)


def _form(request: Request, ctx: Context) -> Any:
    """The form, or an empty one where the request has no body, as OHIF sends it."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        return receive_form(request, ctx.settings.max_json_bytes)
    return _NoForm()


class _NoForm:
    async def __aenter__(self) -> Form:
        return Form()

    async def __aexit__(self, *error: object) -> None:
        return None


def _input(ctx: Context, form: Form, image: str, session_id: str) -> dict[str, str]:
    """What to segment, checked before it waits: an upload, a session's scan, or an image of the datastore."""
    sources: dict[str, str] = {}
    file = form.file("file")
    if file:
        sources["image_file"] = str(checked_file(file))
    elif session_id:
        sources["image_file"] = find_session(ctx, session_id, touch=True).image
    elif image:
        ctx.store.get_image_uri(image)
        sources["image"] = image
    else:
        raise UserError("which scan? Give image=ID, session_id=ID or a form field 'file'")
    label = form.file("label")
    if label:
        sources["label"] = str(checked_file(label))
    return sources


def _sources(ctx: Context, work: Mapping[str, Any]) -> list[pydicom.Dataset]:
    """The images that a DICOM Segmentation of the result is to refer to, before anybody waits for it.

    Raises:
        UserError: If the scan is no DICOM series, or the model's labels are of no one system.
    """
    if work["model"] not in ctx.store.store.models:
        raise UserError(f"output dicom_seg: {work['model']} belongs to no system, whose codes the segments would have")
    return dicom_sources(Path(work.get("image_file") or ctx.store.get_image_uri(work["image"])))


def _segmentation(
    ctx: Context, result: Mapping[str, Any], sources: list[pydicom.Dataset], model: str, author: str
) -> Response:
    system = ctx.app.systems[ctx.store.store.models[model]]
    try:
        content = segmentation_file(result, sources, system, model, author)
    finally:
        discard(result)
    disposition = {"Content-Disposition": f'attachment; filename="{model}.dcm"'}
    return Response(content, media_type="application/dicom", headers=disposition)


async def _finish(request: Request, future: Future[dict[str, Any]]) -> dict[str, Any]:
    """Wait for an inference; take it out of the queue if the client goes away before it starts."""
    work: asyncio.Future[Any] = asyncio.wrap_future(future)
    gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        if not future.cancel():  # it runs: its files are needed to the end
            await asyncio.wait({work})
            if work.exception() is None:
                await run_in_threadpool(discard, work.result())
        raise ClientGone("the client closed the connection before its inference was done")
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(result: Mapping[str, Any], output: Output) -> Response:
    """Read the result's file into the answer and remove it."""
    params, file = result.get("params") or {}, Path(result["file"]) if result.get("file") else None
    try:
        if output is Output.json or file is None or not file.is_file():
            return JSONResponse(params)
        kind = get_mime_type(str(file))
        if output is Output.image:
            disposition = {"Content-Disposition": f'attachment; filename="{name_of_result(file)}"'}
            return Response(file.read_bytes(), media_type=kind, headers=disposition)
        with file.open("rb") as stream:
            fields = {
                "params": (None, json.dumps(params, default=str), "application/json"),
                "image": (name_of_result(file), stream, kind),
            }
            form = MultipartEncoder(fields=fields)
            return Response(form.to_string(), media_type=form.content_type)
    finally:
        discard(result)


def discard(result: Mapping[str, Any]) -> None:
    """Remove the temporary file of a result."""
    if result.get("file"):
        Path(result["file"]).unlink(missing_ok=True)
