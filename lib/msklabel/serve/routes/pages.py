"""``/`` and ``/docs``: two pages for people; they load nothing from elsewhere."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape

from msklabel import __version__
from msklabel.serve.context import Ctx
from msklabel.serve.routes.auth import sign_in_ways
from msklabel.serve.users import User

router = APIRouter(include_in_schema=False)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@lru_cache
def _templates() -> Environment:
    folder = Path(__file__).resolve().parents[1] / "pages"
    return Environment(loader=FileSystemLoader(folder), autoescape=select_autoescape())


def _page(name: str, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(name).render(**values), headers=_HEADERS)


@router.get("/")
async def home(request: Request, ctx: Ctx) -> HTMLResponse:
    """The dashboard, for those who are signed in."""
    user: User | None = request.state.user
    if user is None:
        return _page("signin.html", version=__version__, next="/", **sign_in_ways(ctx))
    info, board = await ctx.info.get(), await request.app.state.dashboard.get()
    return _page("home.html", info=info, board=board, user=user, pacs=ctx.proxy is not None, version=__version__)


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
    return _page("docs.html", title=schema["info"]["title"], version=__version__, tags=tags)
