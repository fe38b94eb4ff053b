"""``/`` and ``/docs``: two pages for people; they load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from msklabel import __version__
from msklabel.serve.context import Ctx
from msklabel.serve.routes.auth import sign_in_ways
from msklabel.serve.users import User

router = APIRouter(include_in_schema=False)
_PAGES = Path(__file__).resolve().parents[1] / "pages"
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@lru_cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(_PAGES), autoescape=select_autoescape())


@lru_cache
def _script(name: str) -> tuple[Markup, str]:
    """A script of ours as part of a page, and the policy that lets this one run and no other."""
    text = (_PAGES / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"{_POLICY}; script-src 'sha256-{digest}'"


def page(name: str, policy: str = _POLICY, /, status: int = HTTPStatus.OK, **values: Any) -> HTMLResponse:
    """A page of ours by the name of its template."""
    headers = {**_HEADERS, "Content-Security-Policy": policy}
    return HTMLResponse(_templates().get_template(name).render(**values), status, headers=headers)


@router.get("/")
async def home(request: Request, ctx: Ctx) -> HTMLResponse:
    """The dashboard, for those who are signed in."""
    user: User | None = request.state.user
    if user is None:
        return page("signin.html", version=__version__, next="/", **sign_in_ways(ctx))
    info, board = await ctx.info.get(), await request.app.state.dashboard.get()
    script, policy = _script("home.js")
    shown: dict[str, Any] = {"info": info, "board": board, "user": user, "pacs": ctx.proxy is not None}
    return page("home.html", policy, script=script, version=__version__, **shown)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    schema = request.app.openapi()
    routes = [
        {"path": path, "method": method.upper(), **what}
        for path, methods in schema["paths"].items()
        for method, what in methods.items()
    ]
    tags: dict[str, list[dict[str, Any]]] = {}
    for route in routes:
        tags.setdefault((route.get("tags") or ["Others"])[0], []).append(route)
    return page("docs.html", title=schema["info"]["title"], version=__version__, tags=tags)
