"""``/msk/preview``: a small picture of a scan with its label."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from msklabel.errors import NotFound
from msklabel.imaging.channels import read_channels
from msklabel.imaging.preview import preview_png
from msklabel.imaging.read import read_labels
from msklabel.serve.context import AsUser, Context, Ctx
from msklabel.serve.options import check_known
from msklabel.store.labels import FINAL, ORIGINAL
from msklabel.store.schema import LabelVersion

router = APIRouter(prefix="/msk/preview", tags=["Datastore"])
_KEPT = 64


@router.get(
    "",
    summary="Three planes of a scan with the newest label of a system, PNG",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
def get_preview(ctx: Ctx, user: AsUser, image: str, system: str) -> Response:
    check_known(system, ctx.app.systems, "system")
    version, store = _newest(ctx, image, system), ctx.store.store
    colors = tuple((item.index, item.color) for item in ctx.app.systems[system].labels.values())
    scan = store.images.path(image)
    picture = _drawn(scan, scan.stat().st_mtime_ns, store.labels.file(version) if version else None, colors)
    return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=60"})


@lru_cache(maxsize=_KEPT)
def _drawn(scan: Path, time_ns: int, label: Path | None, colors: tuple[tuple[int, tuple[int, int, int]], ...]) -> bytes:
    """The picture; a scan that changes has another time, and a label never changes under its path."""
    return preview_png(read_channels(scan), read_labels(label) if label else None, dict(colors))


def _newest(ctx: Context, image: str, system: str) -> LabelVersion | None:
    ctx.store.store.images.get(image)
    for tag in (FINAL, ORIGINAL):
        try:
            version: LabelVersion = ctx.store.store.labels.newest(image, tag, system)
            return version
        except NotFound:
            continue
    return None
