"""``/info/``: what is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from msklabel import __version__
from msklabel.serve.context import AsUser, Ctx

router = APIRouter(prefix="/info", tags=["App"])


@router.get("/", summary="Models, labels, strategies, progress of training, counts")
async def get_info(ctx: Ctx, user: AsUser) -> JSONResponse:
    info = await ctx.info.get()
    extra: dict[str, Any] = {"version": __version__, "inference": ctx.inferences.lengths()}
    if reason := ctx.store.store.read_only:
        extra["read_only"] = reason
    extra["scores"] = ctx.background.report
    return JSONResponse({**info, "msklabel": extra})
