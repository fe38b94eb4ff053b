"""Every failure becomes JSON with the right status and one sentence."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from sqlalchemy.exc import DatabaseError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msklabel.errors import UserError
from msklabel.store.damage import is_damage
from msklabel.store.database import is_unreached
from msklabel.store.files import is_storage_full

logger = logging.getLogger(__name__)
_CALLERS_FAULT = (MONAILabelError.INVALID_INPUT, MONAILabelError.APP_INIT_ERROR)
_CLIENT_CLOSED = 499


class TooLarge(UserError):
    """The request is larger than the server takes."""

    status = 413


class Forbidden(UserError):
    """The user's role does not allow it."""

    status = 403


class ClientGone(UserError):
    """Nobody waits for the answer any more."""

    status = _CLIENT_CLOSED


def explain(error: Exception) -> tuple[int, str]:
    """Status and sentence for an error; 500 means that it is a bug."""
    if isinstance(error, ClientDisconnect):
        return _CLIENT_CLOSED, "the client closed the connection"
    if isinstance(error, UserError):
        return error.status, str(error)
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return HTTPStatus.NOT_FOUND, error.msg
    if isinstance(error, MONAILabelException) and error.error in _CALLERS_FAULT:
        return HTTPStatus.BAD_REQUEST, error.msg
    if isinstance(error, DatabaseError) and is_damage(error):
        return HTTPStatus.SERVICE_UNAVAILABLE, "the database is damaged: restart the server, which then says what to do"
    if is_storage_full(error):
        return HTTPStatus.INSUFFICIENT_STORAGE, "the disk is full or cannot be written; nothing was stored"
    if is_unreached(error):
        return HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer; try again later"
    return (
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"internal error ({type(error).__name__}); the log says more",
    )


def explain_and_log(error: Exception, where: str) -> tuple[int, str]:
    """As :func:`explain`; bugs, failures of other servers, and scans that are refused are in the log, too."""
    status, sentence = explain(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s failed", where, exc_info=error)
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s: %s", where, sentence if isinstance(error, UserError) else f"{sentence} ({error})")
    elif isinstance(error, UserError) and status == HTTPStatus.BAD_REQUEST:
        logger.warning("%s: %s", where, sentence)
    return status, sentence


class ErrorAnswers:
    """ASGI middleware: answer what the routes raise."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            status, sentence = explain_and_log(error, f"{scope['method']} {scope['path']}")
            if started:
                raise
            if status != _CLIENT_CLOSED:
                await JSONResponse({"detail": sentence}, status)(scope, receive, send)


def add_handlers(app: FastAPI) -> None:
    """Give FastAPI's own two errors the same form."""

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": describe_invalid(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)

    @app.exception_handler(StarletteHTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        detail = error.detail
        if error.status_code == HTTPStatus.NOT_FOUND and detail == "Not Found":
            detail = f"there is nothing at {request.method} {request.url.path}; /docs lists what there is"
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{request.url.path} does not take {request.method}; /docs lists what it takes"
        return JSONResponse({"detail": detail}, error.status_code, getattr(error, "headers", None))


def describe_invalid(error: RequestValidationError) -> str:
    """The first thing that is wrong with a request, as a sentence."""
    first = error.errors()[0]
    place, *names = first["loc"]
    if first["type"] == "json_invalid":
        return "the body is not valid JSON"
    where = {"query": "query parameter", "path": "path", "body": "body"}.get(str(place), str(place))
    name = ".".join(str(part) for part in names)
    quoted = f" {name!r}" if name else ""
    return f"{where}{quoted}: {str(first['msg'])[:1].lower()}{str(first['msg'])[1:]}"
