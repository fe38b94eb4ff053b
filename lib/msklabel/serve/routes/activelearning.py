"""``/activelearning/``: which scan next."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Body, Request

from msklabel.errors import UserError
from msklabel.serve.context import AsUser, Context, Ctx, holder_of
from msklabel.serve.gate import address_of
from msklabel.serve.options import STRATEGY, check_known, choose_options

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/activelearning", tags=["ActiveLearning"])


@router.post("/{strategy}", summary="Next scan to annotate, for you alone for a time; empty when there is none")
async def next_sample(
    request: Request, strategy: str, ctx: Ctx, user: AsUser, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, Any]:
    strategies = (await ctx.info.get())["strategies"]
    check_known(strategy, strategies, "strategy")
    options = choose_options(params or {}, STRATEGY, strategies[strategy].get("config") or {})
    holder = holder_of(request, ctx, user, options.get("client_id"))
    sample = await run_sync(_choose, ctx, strategy, options, holder, limiter=ctx.choosing)
    if sample:
        ctx.prefetch.asked({**options, "strategy": strategy})
        ctx.grants.give(address_of(request.scope, ctx.settings), sample["id"])
        if not ctx.is_local(request):
            sample.pop("path", None)
    return sample


def _choose(ctx: Context, strategy: str, options: dict[str, Any], who: str) -> dict[str, Any]:
    with ctx.store.store.one_view():
        return _chosen(ctx, strategy, options, who)


def _chosen(ctx: Context, strategy: str, options: dict[str, Any], who: str) -> dict[str, Any]:
    sample = ctx.app.next_sample({**options, "strategy": strategy, "client_id": who})
    if not sample:
        return {}
    image = sample["id"]
    noted = ctx.store.get_image_info(image)
    asked = {**noted.get("strategy", {}), strategy: {"ts": int(time.time()), "client_id": who}}
    try:
        ctx.store.update_image_info(image, {"strategy": asked})
    except (UserError, OSError) as error:  # a note only; the scan can be annotated all the same
        logger.warning("image %r: could not note who got it: %s", image, error)
    return {**noted, **sample}
