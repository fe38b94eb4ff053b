"""``/ohif/``: the viewer's files. Public, as they hold nothing; what they ask for is not."""

from __future__ import annotations

import mimetypes
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from msklabel import __version__
from msklabel.serve.context import Ctx
from msklabel.serve.ohif.viewer import ROOT, Viewer, find_viewer
from msklabel.serve.routes.pages import page

router = APIRouter(prefix=ROOT, include_in_schema=False)
_POLICY = (
    "default-src 'self' blob: data:; script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; base-uri 'self'; object-src 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",  # these two give the viewer memory that its workers share
    "Cross-Origin-Embedder-Policy": "require-corp",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@lru_cache
def _viewer() -> Viewer:
    return find_viewer()


@router.get("/")
def get_page(request: Request, ctx: Ctx) -> Response:
    return get_file("", request, ctx)


@router.get("/{path:path}")
def get_file(path: str, request: Request, ctx: Ctx) -> Response:
    """A file, compressed where it is kept so and the browser takes it; where there is no PACS, a page that says so."""
    if ctx.proxy is None:
        return page("no_pacs.html", status=HTTPStatus.NOT_FOUND, version=__version__)
    viewer = _viewer()
    file = viewer.file(path)
    age = "public, max-age=31536000, immutable" if viewer.is_lasting(file) else "no-cache"
    headers = {**_HEADERS, "Cache-Control": age, "Vary": "Accept-Encoding"}
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    packed = Path(f"{file}.gz")
    if "gzip" in request.headers.get("accept-encoding", "") and packed.is_file():
        return FileResponse(packed, media_type=kind, headers={**headers, "Content-Encoding": "gzip"})
    return FileResponse(file, media_type=kind, headers=headers)
