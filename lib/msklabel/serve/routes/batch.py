"""``/batch/infer``: segment many scans as a job."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from fastapi import APIRouter, Body
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType

from msklabel.learn.asked import whole
from msklabel.serve.context import AsAdmin, AsUser, Ctx, author
from msklabel.serve.options import BATCH_INFER, check_known, choose_options
from msklabel.serve.running import job_status, run_job, stop_job

router = APIRouter(prefix="/batch", tags=["Infer"])
_KIND = "batch_infer"


@router.get("/infer", summary="The last batch inference, the running one (404 if none), or all")
def get_status(ctx: Ctx, user: AsUser, all: bool = False, check_if_running: bool = False) -> Any:
    return job_status(ctx, _KIND, all, check_if_running)


@router.post("/infer/{model}", summary="Segment all, labelled or unlabelled scans and store the results")
async def start(
    model: str,
    ctx: Ctx,
    user: AsAdmin,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: Annotated[dict[str, Any] | None, Body()] = None,
    run_sync: bool = False,
) -> Any:
    models = (await ctx.info.latest())["models"]
    check_known(model, models, "model")
    options = choose_options(params or {}, BATCH_INFER, models[model].get("config") or {})
    options["max_batch_size"] = whole(options, "max_batch_size", 0, lowest=0)
    if not torch.cuda.is_available():
        options["multi_gpu"] = False  # MONAI Label divides by the number of GPUs
    request = {
        "max_workers": 1,
        "label_tag": "original",
        **author(user, options),
        "model": model,
        "images": images.value,
    }
    return await run_job(ctx, _KIND, request, run_sync)


@router.delete("/infer", summary="Stop the running batch inference")
def stop(ctx: Ctx, user: AsAdmin) -> Any:
    return stop_job(ctx, _KIND)
