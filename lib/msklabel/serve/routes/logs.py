"""``/logs/``: the end of the server's log."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from msklabel.errors import NotFound
from msklabel.serve.context import AsAdmin, Ctx
from msklabel.serve.server_log import LOG_NAME

router = APIRouter(prefix="/logs", tags=["Others"])


@router.get("/", summary="The last lines of the server's log")
def get_logs(ctx: Ctx, user: AsAdmin, lines: Annotated[int, Query(ge=1, le=100_000)] = 300) -> PlainTextResponse:
    file = ctx.app.options.state / "logs" / LOG_NAME
    if not file.is_file():
        raise NotFound("this server writes no log file")
    with file.open(encoding="utf-8", errors="replace") as stream:
        return PlainTextResponse("".join(deque(stream, lines)))


@router.get("/gpu", summary="What nvidia-smi says")
def get_gpu(user: AsAdmin) -> PlainTextResponse:
    program = shutil.which("nvidia-smi")
    if program is None:
        raise NotFound("this machine has no nvidia-smi")
    done = subprocess.run([program], capture_output=True, text=True, timeout=30, check=False)
    return PlainTextResponse(done.stdout or done.stderr)
