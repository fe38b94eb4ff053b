"""``/msk/leases`` and ``/msk/skip``: which scan is with whom."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from msklabel.serve.context import AsUser, Ctx, holder_of

router = APIRouter(prefix="/msk", tags=["Leases"])


@router.get("/leases", summary="The scans that are with an annotator now, and until when")
def list_leases(ctx: Ctx, user: AsUser) -> list[dict[str, Any]]:
    return [
        {
            "image": lease.image_id,
            "holder": lease.holder,
            "taken": lease.taken.isoformat(),
            "expires": lease.expires.isoformat(),
        }
        for lease in ctx.store.store.leases.running()
    ]


@router.post("/skip", summary="Give a scan back; others get it first, oneself when nothing else is left")
def skip(request: Request, ctx: Ctx, user: AsUser, image: str, client_id: str = "") -> dict[str, Any]:
    """``released`` is whether it was with whoever asks; where its time had run out, it is skipped all the same."""
    holder = holder_of(request, ctx, user, client_id)
    image_id = ctx.store.store.images.get(image).id
    released = ctx.store.store.leases.skip(image_id, holder)
    ctx.store.store.note("skip", holder, image=image_id)
    return {"image": image_id, "holder": holder, "released": released}
