"""One router for each topic; the paths and answers are those of MONAI Label."""

from fastapi import APIRouter

from msklabel.serve.routes import (
    activelearning,
    auth,
    batch,
    choosing,
    datastore,
    infer,
    info,
    jobs,
    labels,
    leases,
    logs,
    pages,
    quantities,
    reviews,
    scoring,
    session,
    train,
    versions,
)

ROUTERS: tuple[APIRouter, ...] = (
    pages.router,
    auth.router,
    info.router,
    activelearning.router,
    datastore.router,
    labels.router,
    leases.router,
    reviews.router,
    quantities.router,
    infer.router,
    batch.router,
    train.router,
    scoring.router,
    jobs.router,
    choosing.router,
    session.router,
    logs.router,
    versions.router,
)
