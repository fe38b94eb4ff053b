"""The FastAPI application: routes in the shape of MONAI Label's REST contract around a MONAI Label app."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.cors import CORSMiddleware

from msklabel import __version__
from msklabel.errors import UserError
from msklabel.jobs.child import AppSource
from msklabel.jobs.inference_queue import InferenceQueue
from msklabel.jobs.precedence import INTERACTIVE, PRECEDENCE, Precedence
from msklabel.jobs.process import JobRunner
from msklabel.predict.progress import reported
from msklabel.serve.auto_train import watch
from msklabel.serve.background import BackgroundScoring
from msklabel.serve.context import Context
from msklabel.serve.dashboard import collect
from msklabel.serve.dicomweb_proxy import DicomwebProxy
from msklabel.serve.errors import ErrorAnswers, add_handlers
from msklabel.serve.exchange import Exchange
from msklabel.serve.gate import EitherSlash, SameSite, SignIn, SizeLimit
from msklabel.serve.grants import ImageGrants
from msklabel.serve.info_cache import InfoCache
from msklabel.serve.measure_labels import KIND, MeasureLabels
from msklabel.serve.openid import OpenId, OpenIdOptions
from msklabel.serve.prefetch import Prefetch
from msklabel.serve.routes import ROUTERS
from msklabel.serve.scratch import Scratch
from msklabel.serve.settings import ServeSettings
from msklabel.serve.users import Users, load_users
from msklabel.serve.web_sessions import WebSessions
from msklabel.store.labels import FINAL
from msklabel.store.presence import PRESENCE, Presence
from msklabel.store.segmentations import SegmentationExchange

if TYPE_CHECKING:
    from msklabel.app import MskLabelApp

logger = logging.getLogger(__name__)
_AT_ONCE = 2  # Python computes on one core; two let one wait for the disk
_AT_ONCE_FROM_PACS = 20  # a scan may have to come first, which takes time but no processor


def create_app(app: MskLabelApp, settings: ServeSettings) -> FastAPI:
    """Build the server of an app.

    Args:
        app: Does the work; its methods are called on threads, never on the event loop.
        settings: How it is reached and by whom.

    Raises:
        UserError: If the token file cannot be used.
    """
    users = load_users(settings.token_file) if settings.token_file else Users({}) if settings.asks_who else None
    info = InfoCache(app.info)
    source = AppSource("msklabel.work:Work", app.app_dir, app.given_studies, app.conf)
    state = app.options.state
    precedence = Precedence(state / PRECEDENCE)
    compute = _coming_first(app, precedence, Precedence(state / INTERACTIVE))
    inferences = InferenceQueue(compute, _devices(app), settings.max_waiting_inferences)

    def waiting() -> bool:
        return any(sum(lane.values()) for lane in inferences.lengths().values())

    store: Any = app.datastore()
    light = {KIND: replace(source, factory="msklabel.jobs.measuring:Measuring")}
    presence = Presence(state / PRESENCE)
    kept = timedelta(days=app.options.job_days)
    keep = partial(store.store.jobs.put, server=presence.server, kept=kept)
    jobs = JobRunner(source, state / "logs", settings.stop_grace_s, lambda job: info.forget(), keep, light)
    segmentations = SegmentationExchange(store.store, app.pacs) if app.pacs else None
    at_once = _AT_ONCE_FROM_PACS if app.pacs else _AT_ONCE
    context = Context(
        app=app,
        settings=settings,
        users=users,
        web_sessions=WebSessions(settings.session_s, settings.session_at_most_s),
        grants=ImageGrants(settings.image_grant_s),
        inferences=inferences,
        presence=presence,
        jobs=jobs,
        info=info,
        scratch=Scratch(state),
        background=BackgroundScoring(
            jobs,
            precedence,
            app.scores_progress,
            waiting,
            settings.scoring_delay_s,
        ),
        prefetch=Prefetch(app, precedence, waiting, settings.prefetch_scans),
        measuring=MeasureLabels(jobs, lambda most: _unmeasured(store, most)),
        choosing=CapacityLimiter(at_once),
        submitting=CapacityLimiter(at_once),
        openid=_openid(settings),
        proxy=DicomwebProxy(app.pacs) if app.pacs else None,
        segmentations=segmentations,
        exchange=Exchange(segmentations, info.forget, settings.exchange_pause_s) if segmentations else None,
    )
    api = FastAPI(
        title="msklabel",
        version=__version__,
        description="Active-learning annotation server for hip and thigh imaging. Not for clinical use.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    api.state.context = context
    api.state.dashboard = InfoCache(lambda: collect(context))
    for router in ROUTERS:
        api.include_router(router)
    add_handlers(api)
    _add_middleware(api, context)
    return api


def _unmeasured(store: Any, most: int) -> list[int]:
    """Label versions that are to be measured; none where nothing can be stored."""
    return [] if store.store.read_only else list(store.store.quantities.missing(FINAL, most))


def _add_middleware(api: FastAPI, context: Context) -> None:
    """In the order of a request's way in, last to first."""
    settings = context.settings
    paths = [path for router in ROUTERS for route in router.routes if (path := getattr(route, "path", ""))]
    api.add_middleware(ErrorAnswers)
    api.add_middleware(SizeLimit, settings=settings)
    api.add_middleware(
        SignIn,
        settings=settings,
        users=context.users,
        grants=context.grants,
        web_sessions=context.web_sessions,
        openid=context.openid,
    )
    api.add_middleware(EitherSlash, with_slash=frozenset(path for path in paths if path.endswith("/") and path != "/"))
    if settings.cors_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=False,
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type"],
        )
    api.add_middleware(SameSite, settings=settings)
    api.add_middleware(ErrorAnswers)


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    context: Context = api.state.context
    await run_in_threadpool(_arrive, context)
    await run_in_threadpool(context.scratch.open)
    await run_in_threadpool(context.app.cleanup_sessions)
    if context.exchange:
        context.exchange.start()
    context.background.start()
    context.prefetch.start()
    context.measuring.start()
    training = watch(context.app, context.jobs) if context.app.options.auto_train else None
    if training:
        training.open()
    try:
        yield
    finally:
        if training:
            training.close()
        context.measuring.close()
        await run_in_threadpool(context.prefetch.close)
        await run_in_threadpool(context.app.ahead.close)
        await run_in_threadpool(context.background.close)
        context.inferences.close()
        await run_in_threadpool(context.jobs.close)
        context.info.close()
        api.state.dashboard.close()
        if context.exchange:
            await run_in_threadpool(context.exchange.close)
        if context.proxy:
            await context.proxy.close()
        await run_in_threadpool(context.scratch.close)
        context.presence.leave()


def _arrive(context: Context) -> None:
    """Be there; jobs that are said to run, of servers that ended, do not; files are theirs where no other is."""
    store = context.store.store

    def arrive(ended: Collection[str], alone: bool) -> None:
        if alone:
            context.scratch.tidy()
        for job in store.jobs.lose_running(ended, alone):
            logger.warning("%s job %s was lost: its server ended before it did", job.kind, job.id)
        if alone:
            store.quantities.forget_failed()

    try:
        context.presence.enter(arrive)
    except (OSError, UserError) as error:  # a damaged database, or a disk that is full
        logger.warning("jobs of an earlier server could not be looked at: %s", error)


def _openid(settings: ServeSettings) -> OpenId | None:
    if settings.openid_issuer is None:
        return None
    file = Path(settings.openid_secret_file) if settings.openid_secret_file else None
    return OpenId(OpenIdOptions(settings.openid_issuer, settings.openid_client, file, settings.openid_roles))


def _coming_first(
    app: MskLabelApp, precedence: Precedence, interactive: Precedence
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What computes for those who wait; background work and trainings of other processes pause meanwhile."""

    def compute(request: Mapping[str, Any]) -> dict[str, Any]:
        request = dict(request)
        with precedence.held(), interactive.held(), reported(request.pop("progress", None)):
            return app.heatmap(request) if "heatmap" in request else app.infer(request)

    return compute


def _devices(app: MskLabelApp) -> list[str]:
    chosen: Any = app.options.device
    return [chosen or ("cuda" if torch.cuda.is_available() else "cpu")]
