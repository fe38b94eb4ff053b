"""``/datastore/``: images and the list of all there is."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from monailabel.utils.others.generic import get_mime_type
from starlette.background import BackgroundTask

from msklabel.errors import NotFound, UserError
from msklabel.imaging.channels import read_channels
from msklabel.imaging.names import DETACHED_SUFFIXES, plain_name, without_suffix
from msklabel.imaging.read import read_scan
from msklabel.imaging.write_scan import write_channel
from msklabel.serve.context import AsAdmin, AsAnnotator, AsUser, Ctx, author, holder_of, renew_lease
from msklabel.serve.forms import multipart
from msklabel.serve.uploads import read_notes, receive_form

router = APIRouter(prefix="/datastore", tags=["Datastore"])
_BLOCK_BYTES = 1 << 20
_CHECKSUMS = ("SHA256", "SHA512", "MD5")


class Listing(str, Enum):
    """What ``GET /datastore/`` tells."""

    train = "train"
    stats = "stats"
    all = "all"


@router.get("/", summary="Counts, all images and labels, or the pairs to train on")
def list_datastore(request: Request, ctx: Ctx, user: AsUser, output: Listing = Listing.stats) -> JSONResponse:
    if output is Listing.all:
        return JSONResponse(ctx.store.json())
    if output is Listing.stats:
        return JSONResponse(ctx.store.status())
    pairs = ctx.store.datalist()
    if not ctx.is_local(request):  # paths of this machine are nobody else's business
        pairs = [{key: _name(value) for key, value in pair.items()} for pair in pairs]
    return JSONResponse(pairs)


@router.put("/", summary="Upload an image", include_in_schema=False)
@router.put("/image", summary="Upload an image", openapi_extra=multipart("file"))
async def add_image(request: Request, ctx: Ctx, user: AsAnnotator, image: str | None = None) -> dict[str, str]:
    async with receive_form(request, ctx.settings.max_json_bytes) as form:
        notes = author(user, form.json("params"))
        image_id = await run_in_threadpool(ctx.store.add_image, image or None, str(form.needed("file")), notes)
    ctx.info.forget()
    return {"image": image_id}


@router.delete("/", summary="Remove an uploaded image", include_in_schema=False)
@router.delete("/image", summary="Remove an uploaded image")
def remove_image(ctx: Ctx, user: AsAdmin, id: str) -> dict[str, Any]:
    ctx.store.remove_image(id)
    ctx.info.forget()
    return {}


@router.head("/image", summary="Whether there is such an image, with this checksum")
def check_image(ctx: Ctx, user: AsUser, image: str, check_sum: str | None = None) -> dict[str, Any]:
    path = Path(ctx.store.get_image_uri(image))
    if check_sum:
        kind, _, digest = check_sum.rpartition(":")
        if (kind or "SHA256") not in _CHECKSUMS:
            raise UserError(f"check_sum: expected one of {', '.join(_CHECKSUMS)} and the digest, such as SHA256:12ab…")
        if not path.is_file() or _digest(path, kind or "SHA256") != digest.lower():
            raise NotFound(f"image {image!r} has another checksum")
    return {}


@router.get("/image", summary="Download an image; a DICOM series, or a header with its voxels, comes as one NRRD file")
def get_image(request: Request, ctx: Ctx, user: AsUser, image: str) -> Response:
    path = Path(ctx.store.get_image_uri(image))
    renew_lease(ctx, holder_of(request, ctx, user), image)
    if path.is_dir() or path.name.lower().endswith(DETACHED_SUFFIXES):
        folder = tempfile.mkdtemp(prefix="series-")
        task = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        file = Path(folder) / f"{without_suffix(path.name)}.nrrd"  # viewers open one file, not an archive of many
        try:
            write_channel(file, read_channels(path) if path.is_dir() else read_scan(path))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return FileResponse(file, media_type="application/octet-stream", filename=file.name, background=task)
    if not path.is_file():
        raise NotFound(f"the file of image {image!r} is not there at present")
    return FileResponse(path, media_type=get_mime_type(str(path)), filename=plain_name(path.name))


@router.get("/image/info", summary="What is noted about an image")
def get_image_info(request: Request, ctx: Ctx, user: AsUser, image: str) -> dict[str, Any]:
    info: dict[str, Any] = ctx.store.get_image_info(image)
    return info if ctx.is_local(request) else {key: value for key, value in info.items() if key != "path"}


@router.put("/image/info", summary="Note something about an image: a form field, or a JSON body")
async def put_image_info(
    request: Request, ctx: Ctx, user: AsAnnotator, image: str, info: Annotated[str, Form()] = "{}"
) -> None:
    notes = author(user, await read_notes(request, "info", info))
    await run_in_threadpool(ctx.store.update_image_info, image, notes)
    ctx.measuring.due()


@router.get("/dataset", summary="All images and labels as a zip file")
def get_dataset(ctx: Ctx, user: AsAnnotator, limit_cases: int | None = None) -> Response:
    if limit_cases is not None and limit_cases < 1:
        raise UserError(f"limit_cases: expected a whole number from 1, got {limit_cases}")
    path = Path(ctx.store.get_dataset_archive(limit_cases))
    return FileResponse(
        path, media_type="application/zip", filename="dataset.zip", background=BackgroundTask(path.unlink, True)
    )


def _digest(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _name(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) else value
