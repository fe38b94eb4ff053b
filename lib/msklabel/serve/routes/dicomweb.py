"""``/dicom-web`` and MONAI Label's ``/proxy/dicom``: the PACS behind this server, read only."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from msklabel.errors import NotFound
from msklabel.serve.context import AsUser, Context, Ctx
from msklabel.serve.dicomweb_proxy import PREFIX

router = APIRouter(tags=["DICOMweb"])


@router.get(PREFIX + "/{path:path}", response_class=Response)
async def dicomweb(path: str, request: Request, ctx: Ctx, user: AsUser) -> Response:
    """Pass a QIDO-RS or WADO-RS request on to the PACS."""
    return await _forward(ctx, request, path)


@router.get("/proxy/dicom/{service}/{path:path}", response_class=Response, include_in_schema=False)
async def proxy(service: str, path: str, request: Request, ctx: Ctx, user: AsUser) -> Response:
    """The same under the addresses of MONAI Label's own viewer."""
    if service not in ("wado", "qido"):
        raise NotFound(f"there is no service {service[:50]!r}; services: wado, qido")
    return await _forward(ctx, request, path)


@router.get("/msk/segmentations", summary="What became of each segmentation in the PACS that was looked at")
def list_segmentations(ctx: Ctx, user: AsUser) -> dict[str, str]:
    return ctx.segmentations.outcomes() if ctx.segmentations else {}


async def _forward(ctx: Context, request: Request, path: str) -> Response:
    if ctx.proxy is None:
        raise NotFound("there is no PACS behind this server: its studies are files in a folder")
    return await ctx.proxy.forward(request, path)
