"""Start a server and say what to do next."""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvicorn
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from threadpoolctl import threadpool_limits

from msklabel.errors import UserError
from msklabel.serve.server_log import log_to
from msklabel.serve.settings import ServeSettings

if TYPE_CHECKING:
    from msklabel.app import MskLabelApp

_SWITCH_S = 0.001


def serve(app_dir: str, studies: str, conf: Mapping[str, str], settings: ServeSettings) -> None:
    """Serve until told to stop.

    Args:
        app_dir: Folder of the MONAI Label app.
        studies: Folder of the user's images.
        conf: ``--conf`` keys and values.
        settings: How the server is reached.

    Raises:
        UserError: If the folder is missing, an option is wrong, or the port is taken.
    """
    listener = _listen(settings)  # before the imports and the app, which take seconds
    from msklabel.app import MskLabelApp
    from msklabel.serve.application import create_app

    with listener:
        settings = replace(settings, port=listener.getsockname()[1])
        app = MskLabelApp(app_dir=app_dir, studies=studies, conf=dict(conf))
        log_to(app.options.state / "logs")
        api = create_app(app, settings)
        # An inference computes on its own thread; the interpreter's default of 5 ms between threads is felt by readers.
        sys.setswitchinterval(_SWITCH_S)
        # The products of matrices that choosing needs take a millisecond. On several threads these wait for each other
        # by giving up the processor, which a training of lower priority then keeps for a time: again and again.
        threadpool_limits(1, user_api="blas")
        # To look through all that was imported for what is not used any more stops all threads for a fifth of a second.
        gc.collect()
        gc.freeze()
        config = uvicorn.Config(
            api,
            log_config=None,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        _greet(app, settings)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        if not api.state.context.inferences.close():
            logging.shutdown()
            os._exit(0)  # an inference cannot be interrupted, and nobody waits for it any more


def _listen(settings: ServeSettings) -> socket.socket:
    """The server's socket.

    Raises:
        UserError: If the port is taken or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        reason = {
            errno.EADDRINUSE: "something listens there already; choose another --port",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
            errno.EACCES: "ports below 1024 are not for ordinary users",
        }.get(error.errno or 0, error.strerror or str(error))
        raise UserError(f"cannot listen on {settings.host} port {settings.port}: {reason}") from error
    return listener


def _greet(app: MskLabelApp, settings: ServeSettings) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{settings.port}"
    store: Any = app.datastore()
    images = store.status().get("total", 0)
    lines = [
        f"[bold]{address}[/bold]   {images} scans in {app.given_studies}",
        "",
        "In 3D Slicer: install the extension MONAILabel, open the module [bold]MONAI Label[/bold],",
        f"  enter {address} as MONAI Label server, press the green arrow, then [bold]Next Sample[/bold].",
        f"In a browser: {address} says what is served, {address}/docs what can be asked.",
        f"Sign in {'with a user and the token from the token file' if settings.token_file else 'at the issuer'}."
        if settings.asks_who
        else "Only this machine can reach it; others need --host and --token-file.",
        "Not for clinical use. Stop with Ctrl-C.",
    ]
    if reason := store.store.read_only:
        lines = [f"[bold red]{escape(reason)}[/bold red]", "", *lines]
    Console().print(Panel("\n".join(lines), title="msklabel", expand=False))
