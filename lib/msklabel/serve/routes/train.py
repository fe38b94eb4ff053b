"""``/train/``: training as a job."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.concurrency import run_in_threadpool

from msklabel.serve.context import AsAnnotator, AsUser, Context, Ctx, author
from msklabel.serve.options import TRAIN, check_known, check_spelling, choose_options
from msklabel.serve.running import job_status, options_of, run_job, run_jobs, stop_job

router = APIRouter(prefix="/train", tags=["Train"])
Params = Annotated[dict[str, Any] | None, Body()]


@router.get("/", summary="The last training, the running one (404 if none), or all")
def get_status(ctx: Ctx, user: AsUser, all: bool = False, check_if_running: bool = False) -> Any:
    return job_status(ctx, "train", all, check_if_running)


@router.post("/", summary="Train all systems, one after the other", include_in_schema=False)
async def train_all(ctx: Ctx, user: AsAnnotator, params: Params = None, run_sync: bool = False) -> Any:
    trainers = (await ctx.info.latest())["trainers"]
    requests = {}
    for model, trainer in trainers.items():
        options = await _options(ctx, model, options_of(params, model), trainer.get("config") or {})
        requests[model] = {**author(user, options), "model": model}
    return await run_jobs(ctx, "train", requests, run_sync)


@router.post("/{model}", summary="Train a system; 429 if a training runs")
async def train(
    model: str, ctx: Ctx, user: AsAnnotator, params: Params = None, run_sync: bool = False, enqueue: bool = False
) -> Any:
    trainers = (await ctx.info.latest())["trainers"]
    check_known(model, trainers, "model to train")
    options = await _options(ctx, model, params or {}, trainers[model].get("config") or {})
    return await run_job(ctx, "train", {**author(user, options), "model": model}, run_sync, enqueue)


@router.delete("/", summary="Stop the running training at its next checkpoint")
def stop(ctx: Ctx, user: AsAnnotator) -> Any:
    return stop_job(ctx, "train")


async def _options(ctx: Context, model: str, sent: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """What a client may set of what it sent, checked before a job is started for it."""
    check_spelling(sent, TRAIN | set(config))
    options = choose_options(sent, TRAIN, config)
    await run_in_threadpool(ctx.app.check_training, model, options)
    return options
