"""One router for each topic; the paths and answers are those of MONAI Label."""

from fastapi import APIRouter

from msklabel.serve.routes import (
    activelearning,
    auth,
    batch,
    datastore,
    dicomweb,
    infer,
    info,
    labels,
    leases,
    logs,
    pages,
    scoring,
    session,
    train,
)

ROUTERS: tuple[APIRouter, ...] = (
    pages.router,
    auth.router,
    info.router,
    activelearning.router,
    datastore.router,
    labels.router,
    leases.router,
    leases.router,
    infer.router,
    batch.router,
    train.router,
    scoring.router,
    session.router,
    logs.router,
    dicomweb.router,
)
