"""What all routes share, and the two things that they ask of a request: the context, and whether the user may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from anyio import CapacityLimiter
from fastapi import Depends, Request

from msklabel.errors import UserError
from msklabel.jobs.inference_queue import InferenceQueue
from msklabel.jobs.process import JobRunner
from msklabel.serve.background import BackgroundScoring
from msklabel.serve.dicomweb_proxy import DicomwebProxy
from msklabel.serve.errors import Forbidden
from msklabel.serve.exchange import Exchange
from msklabel.serve.gate import address_of
from msklabel.serve.grants import ImageGrants
from msklabel.serve.info_cache import InfoCache
from msklabel.serve.measure_labels import MeasureLabels
from msklabel.serve.openid import OpenId
from msklabel.serve.prefetch import Prefetch
from msklabel.serve.scratch import Scratch
from msklabel.serve.settings import ServeSettings, is_loopback
from msklabel.serve.users import User, Users
from msklabel.serve.web_sessions import WebSessions
from msklabel.store.presence import Presence
from msklabel.store.segmentations import SegmentationExchange

if TYPE_CHECKING:
    from msklabel.app import MskLabelApp

_NAME_CHARACTERS = 200


@dataclass(frozen=True)
class Context:
    """One server.

    Attributes:
        app: The MONAI Label app.
        settings: How it is served.
        users: None where nobody is asked who he is.
        web_sessions: Browsers that are signed in.
        grants: Scans that may be fetched without a token.
        inferences: Where inferences wait.
        presence: That this server is there.
        jobs: Training, scoring, batch inference.
        info: What ``/info/`` answers.
        scratch: Where temporary files lie.
        background: Keeps scores up to date.
        prefetch: Predicts what is likely asked for next.
        measuring: Has submitted labels measured.
        choosing: Few choices of a next scan at once: more would be no faster, and hold up whoever only reads.
        submitting: The same for labels that come in, apart, so that who wants a scan does not wait for them.
        openid: Who else signs people in.
        proxy: To the PACS, where the studies lie in one.
        segmentations: Those of the PACS.
        exchange: Exchanges them from time to time.
    """

    app: MskLabelApp
    settings: ServeSettings
    users: Users | None
    web_sessions: WebSessions
    grants: ImageGrants
    inferences: InferenceQueue[dict[str, Any]]
    presence: Presence
    jobs: JobRunner
    info: InfoCache
    scratch: Scratch
    background: BackgroundScoring
    prefetch: Prefetch
    measuring: MeasureLabels
    choosing: CapacityLimiter
    submitting: CapacityLimiter
    openid: OpenId | None = None
    proxy: DicomwebProxy | None = None
    segmentations: SegmentationExchange | None = None
    exchange: Exchange | None = None

    @property
    def store(self) -> Any:
        """The app's datastore."""
        return self.app.datastore()

    def is_local(self, request: Request) -> bool:
        """Whether the client is on this machine, so that paths here mean something to it."""
        return is_loopback(address_of(request.scope, self.settings))


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _needs(role: str) -> Callable[[Request], Awaitable[User]]:
    async def check(request: Request) -> User:
        user: User = request.state.user
        if not user.may(role):
            raise Forbidden(f"{user.name or 'this client'} has the role {user.role}; this needs {role}")
        return user

    return check


Ctx = Annotated[Context, Depends(_context)]
AsUser = Annotated[User, Depends(_needs("user"))]
AsAnnotator = Annotated[User, Depends(_needs("annotator"))]
AsReviewer = Annotated[User, Depends(_needs("reviewer"))]
AsAdmin = Annotated[User, Depends(_needs("admin"))]


def holder_of(request: Request, ctx: Context, user: User, client_id: Any = None) -> str:
    """Whom a scan is given to: the signed-in user, else what the client calls itself, else its address.

    Raises:
        UserError: If the client's name is no text or number.
    """
    if isinstance(client_id, bool | list | dict):
        raise UserError(f"client_id: expected a text, got {type(client_id).__name__}")
    named = user.name or str(client_id or "").strip()
    return named[:_NAME_CHARACTERS] or f"client at {address_of(request.scope, ctx.settings) or 'an unknown address'}"


def renew_lease(ctx: Context, holder: str, image: str | None = None) -> None:
    """Somebody works on a scan, or on one that is not known: his leases begin anew."""
    leases = ctx.store.store.leases
    if image:
        leases.renew(image, holder)
    else:
        leases.renew_all(holder)


def author(user: User, options: dict[str, Any]) -> dict[str, Any]:
    """A client's notes with the signed-in user as author; a client cannot name another one."""
    notes = {key: value for key, value in options.items() if key not in ("user", "author")}
    return {**notes, "user": user.name} if user.name else notes
