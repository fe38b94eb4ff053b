"""``/msk/jobs``: trainings, scorings and batch inferences, those before the last restart included."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from msklabel.errors import UserError
from msklabel.jobs.process import KINDS
from msklabel.serve.context import AsUser, Ctx
from msklabel.store.jobs import describe

router = APIRouter(prefix="/msk/jobs", tags=["Others"])


@router.get("", summary="The last jobs, newest first; LOST is one whose server ended before it did")
def list_jobs(
    ctx: Ctx, user: AsUser, kind: str | None = None, newest: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[dict[str, Any]]:
    if kind is not None and kind not in KINDS:
        raise UserError(f"kind {kind[:80]!r}: expected one of {', '.join(KINDS)}")
    return [describe(job) for job in reversed(ctx.store.store.jobs.recent(kind, newest))]
