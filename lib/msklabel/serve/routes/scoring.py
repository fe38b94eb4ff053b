"""``/scoring/``: scores of labels and images as a job."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from msklabel.serve.context import AsAnnotator, AsUser, Ctx, author
from msklabel.serve.options import SCORING, check_known, choose_options
from msklabel.serve.running import job_status, options_of, run_job, run_jobs, stop_job

router = APIRouter(prefix="/scoring", tags=["Scoring"])
Params = Annotated[dict[str, Any] | None, Body()]


@router.get("/", summary="The last scoring, the running one (404 if none), or all")
def get_status(ctx: Ctx, user: AsUser, all: bool = False, check_if_running: bool = False) -> Any:
    return job_status(ctx, "scoring", all, check_if_running)


@router.post("/", summary="Run all scoring methods", include_in_schema=False)
async def score_all(ctx: Ctx, user: AsAnnotator, params: Params = None, run_sync: bool = False) -> Any:
    methods = (await ctx.info.latest())["scoring"]
    requests = {}
    for method, task in methods.items():
        options = choose_options(options_of(params, method), SCORING, task.get("config") or {})
        requests[method] = {**author(user, options), "method": method}
    return await run_jobs(ctx, "scoring", requests, run_sync)


@router.post("/{method}", summary="Run a scoring method; 429 if one runs")
async def score(method: str, ctx: Ctx, user: AsAnnotator, params: Params = None, run_sync: bool = False) -> Any:
    methods = (await ctx.info.latest())["scoring"]
    check_known(method, methods, "scoring method")
    options = choose_options(params or {}, SCORING, methods[method].get("config") or {})
    return await run_job(ctx, "scoring", {**author(user, options), "method": method}, run_sync)


@router.delete("/", summary="Stop the running scoring")
def stop(ctx: Ctx, user: AsAnnotator) -> Any:
    return stop_job(ctx, "scoring")
