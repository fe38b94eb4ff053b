"""What the routes of training, scoring and batch inference have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fastapi.concurrency import run_in_threadpool

from msklabel.errors import NotFound
from msklabel.jobs.process import AlreadyRunning
from msklabel.serve.context import Context
from msklabel.store.jobs import JobRow

_RECORDED = 100


def job_status(ctx: Context, kind: str, all_jobs: bool, check_if_running: bool) -> Any:
    """The running job, the last one, or all; those before the last restart as they were recorded.

    Raises:
        NotFound: If there is none.
    """
    if check_if_running:
        job = ctx.jobs.running(kind)
        if job is None:
            raise NotFound(f"no {kind} job is running")
        return job.describe()
    jobs = [job.describe() for job in ctx.jobs.jobs(kind)]
    if all_jobs or not jobs:
        known = {job["id"] for job in jobs}
        recorded = ctx.store.store.jobs.recent(kind, _RECORDED)
        jobs = [_before_restart(row) for row in recorded if row.id not in known] + jobs
    if not jobs:
        raise NotFound(f"there was no {kind} job yet")
    return jobs if all_jobs else jobs[-1]


def _before_restart(row: JobRow) -> dict[str, Any]:
    """A job that an earlier server recorded, in the form of :meth:`Job.describe`."""
    told: dict[str, Any] = {"id": row.id, "status": row.status, "request": row.request, "start_ts": _local(row.started)}
    told |= {"end_ts": _local(row.ended)} if row.ended else {}
    return {**told, **({"details": [row.detail]} if row.detail else {})}


def _local(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


async def run_job(ctx: Context, kind: str, request: Mapping[str, Any], run_sync: bool, enqueue: bool = False) -> Any:
    """Start a job and describe it; or wait for its end and return its result.

    Raises:
        AlreadyRunning: If one runs and ``enqueue`` is false.
        JobError: If it was waited for and failed.
    """
    job = await run_in_threadpool(ctx.jobs.start, kind, request, enqueue)
    if not run_sync:
        return job.accepted()
    return await asyncio.shield(asyncio.wrap_future(job.outcome))


async def run_jobs(ctx: Context, kind: str, requests: Mapping[str, Mapping[str, Any]], run_sync: bool) -> Any:
    """Queue one job for each name; ``{name: {"result": job, "detail": why not}}``."""
    answers: dict[str, Any] = {}
    for name, request in requests.items():
        try:
            answers[name] = {"result": await run_job(ctx, kind, request, run_sync, enqueue=True), "detail": None}
        except AlreadyRunning as error:
            answers[name] = {"result": None, "detail": str(error)}
    return answers


def stop_job(ctx: Context, kind: str) -> dict[str, Any] | None:
    """Stop the running job; None if there is none."""
    job = ctx.jobs.stop(kind)
    ctx.info.forget()
    return job.describe() if job else None


def options_of(params: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """A task's part of ``{name: options}``."""
    part = (params or {}).get(name)
    return part if isinstance(part, dict) else {}
