"""ASGI middleware in front of all routes: who is it, is it meant for this server, is it small enough."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msklabel.errors import UserError
from msklabel.serve.errors import TooLarge
from msklabel.serve.grants import ImageGrants
from msklabel.serve.ohif.viewer import ROOT as VIEWER
from msklabel.serve.openid import OpenId
from msklabel.serve.settings import ServeSettings, is_loopback
from msklabel.serve.users import ANYBODY, User, Users
from msklabel.serve.web_sessions import WebSessions

_PUBLIC = ("/", "/docs", "/openapi.json", "/favicon.ico")
_UPLOADS = ("/datastore", "/session", "/infer", "/msk/viewer")
_READS = ("GET", "HEAD", "OPTIONS")


def address_of(scope: Scope, settings: ServeSettings) -> str | None:
    """Address of the client; None when it is hidden behind a proxy that is not trusted."""
    headers = Headers(scope=scope)
    if not settings.trusted_proxies and ("x-forwarded-for" in headers or "forwarded" in headers):
        return None
    client = scope.get("client")
    return client[0] if client else None


class SignIn:
    """Only public paths, holders of a token, and scans granted to an address; sets ``request.state.user``.

    Args:
        app: What comes next.
        settings: For the client's address.
        users: None asks nobody who they are.
        grants: Scans that may be fetched without a token.
        web_sessions: Browsers that are signed in.
        openid: Who else signs people in.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        users: Users | None,
        grants: ImageGrants,
        web_sessions: WebSessions,
        openid: OpenId | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.users = users
        self.grants = grants
        self.web_sessions = web_sessions
        self.openid = openid

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            user = self.identify(scope) or await self._from_issuer(scope)
        except UserError as error:
            refusal = JSONResponse({"detail": str(error)}, error.status, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        if user is None and not _is_public(scope["path"]):
            headers = {"WWW-Authenticate": "Bearer"}
            detail = "sign in: send the header 'Authorization: Bearer TOKEN'; POST /auth/token gives the token"
            await JSONResponse({"detail": detail}, HTTPStatus.UNAUTHORIZED, headers)(scope, receive, send)
            return
        scope.setdefault("state", {})["user"] = user
        await self.app(scope, receive, send)

    async def _from_issuer(self, scope: Scope) -> User | None:
        """The user of an access token that an OpenID Connect issuer gave.

        Raises:
            UserError: If it looks like one and is not valid; on a public path that is no matter.
        """
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if self.openid is None or scheme.lower() != "bearer" or token.count(".") != 2:
            return None
        try:
            return await run_in_threadpool(self.openid.identify, token.strip())
        except UserError:
            if _is_public(scope["path"]):
                return None
            raise

    def identify(self, scope: Scope) -> User | None:
        """Who sends a request."""
        if self.users is None:
            return ANYBODY
        header = Headers(scope=scope).get("authorization", "")
        scheme, _, token = header.partition(" ")
        if header:
            return self.users.identify(token.strip()) if scheme.lower() == "bearer" else None
        if user := self.web_sessions.user(Headers(scope=scope).get("cookie", "")):
            return user
        if scope["path"] == "/datastore/image" and scope["method"] in ("GET", "HEAD"):
            image = parse_qs(scope["query_string"].decode("latin-1")).get("image", [""])[0]
            if self.grants.holds(address_of(scope, self.settings), image):
                return User("", "user")
        return None


class SameSite:
    """Refuse what a foreign page makes a user's browser send: a wrong ``Host``, or a write with a foreign ``Origin``.

    Args:
        app: What comes next.
        settings: Which hosts and origins are ours.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (detail := self._foreign(scope)):
            await JSONResponse({"detail": detail}, HTTPStatus.FORBIDDEN)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _foreign(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname
        if not self.settings.asks_who and not (is_loopback(name) or name in self.settings.allowed_hosts):
            return f"this server is not to be addressed as {host[:100]!r}; use 127.0.0.1"
        origin = headers.get("origin")
        if scope["method"] in _READS or origin is None or "*" in self.settings.cors_origins:
            return None
        if urlsplit(origin).netloc == host or origin in self.settings.cors_origins:
            return None
        return f"pages of {origin[:100]!r} may not write to this server"


class SizeLimit:
    """Stop a request that is too large, before it is read where its length is given.

    Args:
        app: What comes next.
        settings: The limits.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _READS:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        multipart = headers.get("content-type", "").startswith("multipart/")
        upload = multipart and scope["path"].startswith(_UPLOADS)
        limit = self.settings.max_upload_bytes if upload else self.settings.max_json_bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limit:
            raise TooLarge(_too_large(limit))
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise TooLarge(_too_large(limit))
            return message

        await self.app(scope, count, send)


class EitherSlash:
    """Serve ``/info`` and ``/info/`` alike, without a redirect, which the 3D Slicer client would not follow.

    Args:
        app: What comes next.
        with_slash: The paths whose routes end in a slash.
    """

    def __init__(self, app: ASGIApp, with_slash: frozenset[str]) -> None:
        self.app = app
        self.with_slash = with_slash

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.with_slash and scope["path"] != "/":
            path = scope["path"]
            path = path + "/" if path + "/" in self.with_slash else path.removesuffix("/")
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self.app(scope, receive, send)


def _is_public(path: str) -> bool:
    return path in _PUBLIC or path.startswith(("/auth/", f"{VIEWER}/")) or path == VIEWER


def _too_large(limit: int) -> str:
    return f"the request is larger than the {limit / 2**20:.0f} MiB that this server takes"
