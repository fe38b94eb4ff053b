"""``/activelearning/``: which scan next."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Body, Request

from msklabel.errors import UserError
from msklabel.serve.context import AsUser, Context, Ctx, holder_of
from msklabel.serve.gate import address_of
from msklabel.serve.options import STRATEGY, check_known, check_spelling, choose_options

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/activelearning", tags=["ActiveLearning"])

_OF_MONAI_LABEL = {"strategy", "result_extension", "result_dtype", "result_compress"}


@router.post("/{strategy}", summary="Next scan to annotate, for you alone for a time; empty when there is none")
async def next_sample(
    request: Request,
    strategy: str,
    ctx: Ctx,
    user: AsUser,
    later: BackgroundTasks,
    params: Annotated[dict[str, Any] | None, Body()] = None,
) -> dict[str, Any]:
    strategies = (await ctx.info.latest())["strategies"]
    check_known(strategy, strategies, "strategy")
    known = {key for task in strategies.values() for key in task.get("config") or {}}  # a client may keep another's
    check_spelling(params or {}, STRATEGY | known | _OF_MONAI_LABEL)
    options = choose_options(params or {}, STRATEGY, strategies[strategy].get("config") or {})
    holder = holder_of(request, ctx, user, options.get("client_id"))
    sample = await run_sync(_choose, ctx, strategy, options, holder, limiter=ctx.choosing)
    if sample:
        later.add_task(_note, ctx, sample["id"], strategy, holder)
        ctx.prefetch.asked({**options, "strategy": strategy})
        ctx.grants.give(address_of(request.scope, ctx.settings), sample["id"])
        if not ctx.is_local(request):
            sample.pop("path", None)
    return sample


def _choose(ctx: Context, strategy: str, options: dict[str, Any], who: str) -> dict[str, Any]:
    with ctx.store.store.one_view():
        sample = ctx.app.next_sample({**options, "strategy": strategy, "client_id": who})
        return {**ctx.store.get_image_info(sample["id"]), **sample} if sample else {}


def _note(ctx: Context, image: str, strategy: str, who: str) -> None:
    """Note with a scan who got it, once he has his answer; it can be annotated without."""
    try:
        asked = ctx.store.get_image_info(image).get("strategy", {})
        told = {**asked, strategy: {"ts": int(time.time()), "client_id": who}}
        ctx.store.update_image_info(image, {"strategy": told})
    except (UserError, OSError) as error:
        logger.warning("image %r: could not note who got it: %s", image, error)
