"""``/msk/labels``: the history of a scan's labels, and what reviewers say of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from msklabel.serve.context import AsAnnotator, AsUser, Ctx
from msklabel.serve.errors import Forbidden
from msklabel.serve.options import check_known, check_tag
from msklabel.store.history import describe, difference, history, to_review

router = APIRouter(prefix="/msk/labels", tags=["Labels"])


class Verdict(BaseModel):
    """What a reviewer says of a label version."""

    version: int = Field(description="id of the version, as the history lists it")
    state: str = Field(description="accepted, rejected, reopened, or submitted to take it back")
    reason: str = Field("", description="a sentence for the annotator; a rejection needs one", max_length=2000)


@router.get("/history", summary="All versions of a scan's labels, the removed ones too, with their reviews")
def get_history(ctx: Ctx, user: AsUser, image: str, tag: str | None = None) -> list[dict[str, Any]]:
    store = ctx.store.store
    return history(store.labels, store.reviews, store.images.get(image).id, check_tag(tag) if tag else None)


@router.get("/diff", summary="What changed from one version to another: voxels of each class")
def get_difference(ctx: Ctx, user: AsUser, a: int, b: int) -> dict[str, Any]:
    store = ctx.store.store
    return difference(store.labels, store.systems, a, b)


@router.get("/review", summary="What waits for a reviewer; labels that a training holds back first, with the reason")
def list_waiting(
    ctx: Ctx,
    user: AsUser,
    system: str | None = None,
    held: bool = False,
    most: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    if system is not None:
        check_known(system, ctx.app.systems, "system")
    store = ctx.store.store
    return to_review(store.labels, store.reviews, system, held, most)


@router.post("/review", summary="Accept a label, reject it with a reason, or have it made again")
def review(ctx: Ctx, user: AsAnnotator, verdict: Verdict) -> dict[str, Any]:
    store = ctx.store.store
    version = store.labels.get(verdict.version)
    own = bool(user.name) and version.author == user.name and verdict.state == "reopened"
    if not own and not user.may("reviewer"):
        raise Forbidden(f"{user.name} has the role {user.role}; to review the labels of others needs reviewer")
    version = store.reviews.add(version.id, verdict.state, verdict.reason, user.name or None)
    ctx.info.forget()
    return describe(version, store.reviews.of([version.id])[version.id])
