"""``/msk/slices`` and ``/msk/next``: what to draw, and why."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from msklabel.serve.context import AsUser, Ctx, holder_of

router = APIRouter(prefix="/msk", tags=["ActiveLearning"])


@router.get("/slices", summary="The slices of a scan to draw: axis and indices of the scan as stored")
def get_slices(
    ctx: Ctx, user: AsUser, image: str, k: int, system: str | None = None, label: str | None = None
) -> dict[str, Any]:
    plan = ctx.app.choosers(ctx.store.store).slices(image, k, system, label)
    return {"image": image, "axis": plan.axis, "indices": list(plan.indices), "reason": plan.reason}


@router.get("/next/explain", summary="Why a scan stands where it stands: score, label, rank, and what is like it")
def explain(
    request: Request,
    ctx: Ctx,
    user: AsUser,
    image: str,
    strategy: str = "auto",
    system: str = "",
    slices: int = 0,
    client_id: str = "",
) -> dict[str, Any]:
    holder = holder_of(request, ctx, user, client_id)
    options = {"systems": system, "slices": slices, "client_id": holder}
    said: dict[str, Any] = ctx.app.choosers(ctx.store.store).explain(image, strategy, options)
    return said


@router.get(
    "/next/heatmap",
    summary="A slice of a scan with the model's uncertainty on it, PNG",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
async def heatmap(ctx: Ctx, user: AsUser, image: str, system: str, slice: int = -1) -> Response:
    path = await run_in_threadpool(ctx.store.get_image_uri, image)
    work = {"heatmap": system, "image": path, "slice": slice}
    picture = await asyncio.wrap_future(ctx.inferences.submit(work))
    return Response(picture["png"], media_type="image/png")
