"""One router for each topic; the paths and answers are those of MONAI Label."""

from fastapi import APIRouter

from msklabel.serve.routes import (
    activelearning,
    auth,
    batch,
    choosing,
    datastore,
    dicomweb,
    infer,
    info,
    labels,
    leases,
    logs,
    ohif,
    pages,
    preview,
    reviews,
    scoring,
    session,
    train,
    versions,
    viewer,
)

ROUTERS: tuple[APIRouter, ...] = (
    pages.router,
    preview.router,
    auth.router,
    info.router,
    activelearning.router,
    datastore.router,
    labels.router,
    leases.router,
    reviews.router,
    infer.router,
    batch.router,
    train.router,
    scoring.router,
    choosing.router,
    session.router,
    logs.router,
    dicomweb.router,
    versions.router,
    viewer.router,
    ohif.router,
)
