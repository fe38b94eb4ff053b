"""``/ohif/``: the viewer's files. Public, as they hold nothing; what they ask for is not."""

from __future__ import annotations

import mimetypes
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from msklabel.serve.ohif.viewer import ROOT, Viewer, find_viewer

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
def get_page(request: Request) -> FileResponse:
    return get_file("", request)


@router.get("/{path:path}")
def get_file(path: str, request: Request) -> FileResponse:
    """A file, compressed where it is kept so and the browser takes it."""
    viewer = _viewer()
    file = viewer.file(path)
    age = "public, max-age=31536000, immutable" if viewer.is_lasting(file) else "no-cache"
    headers = {**_HEADERS, "Cache-Control": age, "Vary": "Accept-Encoding"}
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    packed = Path(f"{file}.gz")
    if "gzip" in request.headers.get("accept-encoding", "") and packed.is_file():
        return FileResponse(packed, media_type=kind, headers={**headers, "Content-Encoding": "gzip"})
    return FileResponse(file, media_type=kind, headers=headers)
