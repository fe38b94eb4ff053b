"""Start the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msklabel.catalogue import app_folder
from msklabel.cli.shared import Studies
from msklabel.options import describe_keys


def serve(
    studies: Studies,
    models: Annotated[str, typer.Option(help="Systems to serve, comma-separated; all by default.")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs --token-file.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    token_file: Annotated[Path | None, typer.Option(help="One user:token[:role] a line, readable by you only.")] = None,
    conf: Annotated[list[str] | None, typer.Option("--conf", metavar="KEY VALUE", help=f"{describe_keys()}.")] = None,
) -> None:
    """Start the server on a folder of images."""
    from msklabel.serve.run import serve as run
    from msklabel.serve.settings import ServeSettings

    settings = ServeSettings(host=host, port=port, token_file=token_file)
    given = dict(pair.split("=", 1) for pair in conf or ())
    run(str(app_folder()), str(studies), {**given, **({"models": models} if models else {})}, settings)
