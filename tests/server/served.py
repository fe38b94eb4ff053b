"""The server's side of ``live``: real servers in processes of their own, forked from one that has imported everything.

Importing a server takes seconds, and the tests start dozens. How long a start takes from nothing, and that it works, is
for the tests under ``tests/e2e`` that start one as users do.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvicorn

from msklabel.app import MskLabelApp
from msklabel.catalogue import app_folder
from msklabel.serve.application import create_app
from msklabel.serve.run import serve
from msklabel.serve.settings import ServeSettings

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["msklabel.app", "msklabel.serve.application", "msklabel.serve.run"])


def start_server(
    said: Path, studies: str, conf: dict[str, str], settings: dict[str, Any], file_bytes: int = 0
) -> BaseProcess:
    """Serve a folder as ``msklabel serve`` does, on a port of the machine's choice; ``said`` takes what it prints."""
    return _started(_serve, (said, studies, conf, settings, file_bytes))


def start_on(said: Path, studies: str, conf: dict[str, str], listener: socket.socket) -> BaseProcess:
    """Serve a folder on a socket that outlives the server."""
    return _started(_serve_on, (said, studies, conf, listener))


def _started(target: Any, arguments: tuple[Any, ...]) -> BaseProcess:
    process = _CONTEXT.Process(
        target=target, args=arguments, daemon=True
    )  # ends with the tests, if nothing else ends it
    process.start()
    return process


def _serve(said: Path, studies: str, conf: dict[str, str], settings: dict[str, Any], file_bytes: int) -> None:
    _write_to(said)
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes,) * 2)
    token_file = settings.pop("token_file", None)
    serve(
        str(app_folder()),
        studies,
        conf,
        ServeSettings(**{**settings, "port": 0, "token_file": token_file and Path(token_file)}),
    )


def _serve_on(said: Path, studies: str, conf: dict[str, str], listener: socket.socket) -> None:
    _write_to(said)
    app = MskLabelApp(str(app_folder()), studies, conf)
    api = create_app(app, ServeSettings(port=listener.getsockname()[1]))
    uvicorn.Server(uvicorn.Config(api, log_level="error")).run(sockets=[listener])


def _write_to(said: Path) -> None:
    with said.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ["COLUMNS"] = "200"
