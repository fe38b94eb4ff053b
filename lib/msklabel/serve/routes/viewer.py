"""``/msk/viewer``: labels as a web viewer shows them, frame by frame, so that what is submitted is what was seen."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from msklabel.errors import Conflict, NotFound, UserError
from msklabel.imaging import LabelMap
from msklabel.imaging.read import read_labels
from msklabel.imaging.viewer_frames import Frame, frames_of, from_pictures, to_pictures
from msklabel.imaging.write import write_labels
from msklabel.serve.context import AsAnnotator, AsUser, Context, Ctx, author, holder_of, renew_lease
from msklabel.serve.errors import explain_and_log
from msklabel.serve.forms import multipart
from msklabel.serve.options import check_known
from msklabel.serve.routes.infer import discard
from msklabel.serve.uploads import receive_form
from msklabel.store.labels import FINAL, ORIGINAL

router = APIRouter(prefix="/msk/viewer", tags=["Viewer"])
_TOLD_S = 0.3
_NOTES = ("annotated", "client_id", "model_version")


@router.get("/systems", summary="The systems as a viewer offers them: labels with colours, models, training")
async def list_systems(ctx: Ctx, user: AsUser) -> dict[str, Any]:
    info = await ctx.info.get()
    return {name: _described(ctx, name, info) for name in ctx.app.systems}


@router.get("/label", summary="The frames of a scan, and the newest label of a system on them")
def get_label(request: Request, ctx: Ctx, user: AsUser, image: str, system: str, client_id: str = "") -> dict[str, Any]:
    check_known(system, ctx.app.systems, "system")
    store = ctx.store.store
    renew_lease(ctx, holder_of(request, ctx, user, client_id), image)
    shown = _frames(ctx, image)
    for tag in (FINAL, ORIGINAL):
        try:
            version = store.labels.newest(image, tag, system)
        except NotFound:
            continue
        reviews = store.reviews.of([version.id])[version.id]
        said = {"reason": reviews[-1].reason, "who": reviews[-1].who} if reviews else {}
        facts = {"version": version.id, "tag": tag, "state": version.state, "author": version.author, **said}
        facts["annotated"] = version.annotated
        label = read_labels(store.labels.file(version))
        return {**shown, **facts, "model_version": version.base_model, "labels": _packed(label)}
    return {**shown, "version": None, "labels": None}


@router.put("/label", summary="Submit a label, frame by frame", openapi_extra=multipart("label"))
async def put_label(request: Request, ctx: Ctx, user: AsAnnotator, image: str, system: str) -> dict[str, Any]:
    """The form holds ``label``, gzip of 8-bit pixels, and ``params`` with ``frames``, the frame of each picture.

    With ``opened``, the version that the annotator began with or 0, a label is refused where another came since.
    """
    check_known(system, ctx.app.systems, "system")
    async with receive_form(request, ctx.settings.max_json_bytes) as form:
        params = form.json("params")
        notes = author(user, {key: params[key] for key in _NOTES if params.get(key) is not None} | {"model": system})
        holder = holder_of(request, ctx, user, notes.get("client_id"))
        frames = _named(params.get("frames"))
        opened = _version(params.get("opened"))
        submit = partial(_submit, ctx, image, system, form.needed("label"), frames, notes, holder, opened)
        answer = await run_in_threadpool(submit)
    if ctx.exchange:
        ctx.exchange.soon()
    ctx.measuring.due()
    ctx.info.forget()
    return answer


@router.post("/segment", summary="Segment a scan: a line of JSON for each step, the last one with the label")
async def segment(
    request: Request, ctx: Ctx, user: AsUser, image: str, model: str, client_id: str = ""
) -> StreamingResponse:
    """Whoever closes the connection ends the inference."""
    check_known(model, (await ctx.info.latest())["models"], "model")
    await run_in_threadpool(renew_lease, ctx, holder_of(request, ctx, user, client_id), image)
    shown = await run_in_threadpool(_frames, ctx, image)
    steps = _Steps()
    work = {"model": model, "image": image, "result_extension": ".nii", "progress": steps}
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    lines = _told(ctx, ctx.inferences.submit(work), steps, shown)
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


class _Steps:
    """How far an inference is; it ends at the next step once it is not wanted any more."""

    def __init__(self) -> None:
        self.done, self.of, self.wanted = 0, 0, True

    def __call__(self, done: int, of: int) -> None:
        if not self.wanted:
            raise Conflict("nobody waits for this inference any more")
        self.done, self.of = done, of


async def _told(
    ctx: Context, future: Future[dict[str, Any]], steps: _Steps, shown: dict[str, Any]
) -> AsyncIterator[str]:
    started, work = time.monotonic(), asyncio.wrap_future(future)
    try:
        while not (await asyncio.wait({work}, timeout=_TOLD_S))[0]:
            waiting = not future.running()
            before = max(0, sum(sum(lane.values()) for lane in ctx.inferences.lengths().values()) - 1)
            told = {"state": "waiting", "before": before} if waiting else {"state": "running"}
            yield _line(told | {"done": steps.done, "of": steps.of, "seconds": round(time.monotonic() - started, 1)})
        yield _line(await run_in_threadpool(_result, work.result(), shown))
    except Exception as error:
        status, detail = explain_and_log(error, "segmentation for a viewer")
        yield _line({"state": "failed", "status": int(status), "detail": detail})
    finally:
        steps.wanted = False
        if not future.cancel():
            future.add_done_callback(_discarded)


def _discarded(future: Future[dict[str, Any]]) -> None:
    if not future.cancelled() and future.exception() is None:
        discard(future.result())


def _result(result: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    label, params = read_labels(result["file"]), result.get("params") or {}
    facts = {key: params.get(key) for key in ("model_version", "warnings", "latencies")}
    return {"state": "done", **facts, **shown, "labels": _packed(label)}


def _line(told: dict[str, Any]) -> str:
    return json.dumps(told, default=str) + "\n"


def _frames(ctx: Context, image: str) -> dict[str, Any]:
    """The frames of a scan in order, and their size.

    Raises:
        UserError: If it is no DICOM series.
    """
    if ctx.proxy is None:
        raise UserError("web viewers need the scans in a PACS; the studies of this server are files in a folder")
    columns, rows, _ = ctx.store.store.images.grid(image).shape
    frames = frames_of(ctx.store.store.images.path(image))
    return {"image": image, "columns": columns, "rows": rows, "frames": frames}


def _packed(label: LabelMap) -> str:
    packer = zlib.compressobj(1, wbits=31)
    return base64.b64encode(packer.compress(to_pictures(label.array)) + packer.flush()).decode("ascii")


def _named(frames: Any) -> list[Frame]:
    try:
        return [(str(uid), int(number)) for uid, number in frames]
    except (TypeError, ValueError):
        raise UserError("params.frames: expected a list of [SOP Instance UID, number of the frame]") from None


def _version(opened: Any) -> int | None:
    if opened is None or type(opened) is int:
        return opened
    raise UserError("params.opened: expected the number of a version, or 0")


def _submit(
    ctx: Context,
    image: str,
    system: str,
    file: Path,
    named: list[Frame],
    notes: dict[str, Any],
    holder: str,
    opened: int | None,
) -> dict[str, Any]:
    grid, shown = ctx.store.store.images.grid(image), _frames(ctx, image)
    size = shown["columns"] * shown["rows"] * len(shown["frames"])
    array = from_pictures(unpacked(file, size), named, shown["frames"], (shown["columns"], shown["rows"]))
    scheme = ctx.app.systems[system].labels
    with tempfile.TemporaryDirectory(prefix="viewer-") as folder:
        label = Path(folder) / "label.nrrd"
        write_labels(label, LabelMap(array, grid.affine), scheme)
        version = ctx.store.submit(image, label, FINAL, notes, holder=holder, opened=opened)
    return {"image": image, "version": version.id, "state": version.state, "warnings": version.warnings}


def unpacked(file: Path, size: int) -> bytes:
    """What a gzip file holds; of more than so many bytes one more, so that little memory is taken whatever is in it.

    Raises:
        UserError: If it is none, or damaged.
    """
    unpacker, found = zlib.decompressobj(wbits=31), bytearray()
    try:
        with file.open("rb") as stream:
            while len(found) <= size and (block := stream.read(1 << 20)):
                found += unpacker.decompress(block, size + 1 - len(found))
    except zlib.error as error:
        raise UserError("the viewer's label is damaged; submit it again") from error
    return bytes(found)


def _described(ctx: Context, name: str, info: dict[str, Any]) -> dict[str, Any]:
    """A system for the panel: its labels with colours, its models, and how its training stands."""
    system, models = ctx.app.systems[name], info["models"]
    offered = [model for model in models if model == name or ctx.store.store.models.get(model) == name]
    version = ctx.app.versions.serving(name)
    return {
        "title": system.title,
        "modality": list(system.modality),
        "labels": [
            {"name": key, "index": label.index, "color": list(label.color)} for key, label in system.labels.items()
        ],
        "models": [
            {"name": model, "version": models[model].get("version"), "ready": model != name or version is not None}
            for model in offered
        ],
        "version": version,
        "labels_done": info["datastore"].get("systems", {}).get(name, 0),
        "training": training_of(ctx, name, info),
    }


def training_of(ctx: Context, system: str, info: dict[str, Any]) -> dict[str, Any] | None:
    """How far the training of a system is; None while it is not trained."""
    for job in ctx.jobs.jobs("train"):
        if job.status in ("RUNNING", "SUBMITTED") and job.request.get("model") in (system, None):
            stats = (info.get("train_stats") or {}).get(system) or {}
            return {"status": "RUNNING" if job.status == "RUNNING" else "WAITING", **stats}
    return None
