"""``/msk/versions``: what was trained, how it was judged, and the way back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from msklabel.errors import UserError
from msklabel.serve.context import AsReviewer, AsUser, Ctx
from msklabel.serve.options import check_known

router = APIRouter(prefix="/msk/versions", tags=["Versions"])


@router.get("", summary="All versions of all systems, what each system and variant serves, and what was served when")
def list_versions(ctx: Ctx, user: AsUser) -> Any:
    return {name: ctx.app.versions.overview(name, system.variants) for name, system in ctx.app.systems.items()}


@router.get("/{system}", summary="The versions of a system")
def list_versions_of(system: str, ctx: Ctx, user: AsUser) -> Any:
    check_known(system, ctx.app.systems, "system")
    return ctx.app.versions.overview(system, ctx.app.systems[system].variants)


@router.get("/{system}/compare", summary="Two versions, label by label and case by case, on the frozen cases")
def compare(system: str, a: str, b: str, ctx: Ctx, user: AsUser) -> Any:
    check_known(system, ctx.app.systems, "system")
    return ctx.app.compare(system, a, b, measure=False)


@router.post("/{system}/rollback", summary="Serve an earlier version again, or the one named by version")
def roll_back(system: str, ctx: Ctx, user: AsReviewer, body: Annotated[dict[str, Any] | None, Body()] = None) -> Any:
    check_known(system, ctx.app.systems, "system")
    version, variant = (str((body or {}).get(key) or "") for key in ("version", "variant"))
    if variant and variant not in ctx.app.systems[system].variants:
        raise UserError(f"{system} has no variant {variant[:50]!r}")
    served = ctx.app.versions.roll_back(system, version, variant, user.name or "")
    ctx.info.forget()
    return {"system": system, "serving": served}
