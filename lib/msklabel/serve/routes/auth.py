"""``/auth/``: sign in."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from msklabel.serve.context import Ctx
from msklabel.serve.users import User

router = APIRouter(prefix="/auth", tags=["Auth"])


@router.get("/", summary="Whether this server asks who you are")
async def is_enabled(ctx: Ctx) -> dict[str, Any]:
    return {"enabled": ctx.users is not None, "client_id": "msklabel", "realm": ""}


@router.post("/token", summary="Sign in; the password is the token from the server's token file")
async def get_token(
    ctx: Ctx, username: Annotated[str, Form()], password: Annotated[str, Form()]
) -> dict[str, str | None]:
    if ctx.users is None:
        return {"access_token": None, "token_type": None}
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
