"""``/auth/``: sign in."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse

from msklabel.errors import NotFound
from msklabel.serve.context import Context, Ctx
from msklabel.serve.openid import OpenId
from msklabel.serve.users import User

router = APIRouter(prefix="/auth", tags=["Auth"])
_STATE = "msklabel_openid"


@router.get("/", summary="Whether this server asks who you are")
async def is_enabled(ctx: Ctx) -> dict[str, Any]:
    settings = ctx.settings
    known = {"client_id": settings.openid_client, "realm": (settings.openid_issuer or "").rpartition("/")[2]}
    return {"enabled": ctx.users is not None, **known, **sign_in_ways(ctx)}


def sign_in_ways(ctx: Context) -> dict[str, bool]:
    """How a person can sign in."""
    return {"tokens": ctx.settings.token_file is not None, "openid": ctx.openid is not None}


@router.post("/token", summary="Sign in; the password is the token from the server's token file")
async def get_token(
    ctx: Ctx, username: Annotated[str, Form()], password: Annotated[str, Form()]
) -> dict[str, str | None]:
    if ctx.users is None:
        return {"access_token": None, "token_type": None}
    if ctx.openid and ctx.users.sign_in(username, password) is None:
        return {"access_token": await run_in_threadpool(ctx.openid.sign_in, username, password), "token_type": "bearer"}
    if ctx.users.sign_in(username, password) is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "user and token do not belong together")
    return {"access_token": password, "token_type": "bearer"}


@router.post("/session", summary="Sign a browser in: the same, answered with a cookie")
async def open_session(
    request: Request,
    ctx: Ctx,
    username: Annotated[str, Form()],
    password: Annotated[str, Form()],
    next: Annotated[str | None, Form()] = None,
) -> Response:
    """A form without script gives ``next``, a page of this server, and is led there."""
    user = ctx.users.sign_in(username, password) if ctx.users else None
    if user is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "user and token do not belong together")
    told = {"username": user.name, "roles": user.roles}
    led = RedirectResponse(own_page(next), HTTPStatus.SEE_OTHER) if next is not None else None
    response = led or JSONResponse(told)
    ctx.web_sessions.set_cookie(response, ctx.web_sessions.open(user), request.url.scheme == "https")
    return response


def own_page(address: str) -> str:
    """The address if it is a page of this server, else the first page: nobody is led elsewhere."""
    return address if re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*", address) else "/"


@router.get("/openid", summary="Send a browser to the issuer that signs people in", response_class=RedirectResponse)
async def send_away(request: Request, ctx: Ctx, next: str = "/") -> RedirectResponse:
    openid = _issuer(ctx)
    back = f"{request.url.scheme}://{request.url.netloc}/auth/openid/back"
    address, state = await run_in_threadpool(openid.send_away, back, own_page(next))
    response = RedirectResponse(address, HTTPStatus.SEE_OTHER)
    secure = request.url.scheme == "https"
    response.set_cookie(_STATE, state, 600, path="/auth/openid", secure=secure, httponly=True, samesite="lax")
    return response


@router.get("/openid/back", summary="Where the issuer sends it back to", response_class=RedirectResponse)
async def take_back(request: Request, ctx: Ctx, code: str = "", state: str = "") -> RedirectResponse:
    brought = request.cookies.get(_STATE, "")
    user, page = await run_in_threadpool(_issuer(ctx).take_back, code, state, brought)
    response = RedirectResponse(page, HTTPStatus.SEE_OTHER)
    response.delete_cookie(_STATE, path="/auth/openid")
    ctx.web_sessions.set_cookie(response, ctx.web_sessions.open(user), request.url.scheme == "https")
    return response


def _issuer(ctx: Context) -> OpenId:
    if ctx.openid is None:
        raise NotFound("this server knows no issuer that signs people in")
    return ctx.openid


@router.delete("/session", summary="Sign a browser out")
async def close_session(request: Request, response: Response, ctx: Ctx) -> dict[str, Any]:
    ctx.web_sessions.close(request.headers.get("cookie", ""))
    ctx.web_sessions.set_cookie(response, "", request.url.scheme == "https")
    return {}


@router.get("/token/valid", summary="Who you are; 401 if the token is not valid")
async def check_token(request: Request) -> dict[str, Any]:
    user: User | None = request.state.user
    if user is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "the token is not valid", {"WWW-Authenticate": "Bearer"})
    return {"username": user.name, "email": None, "name": user.name, "roles": user.roles}
