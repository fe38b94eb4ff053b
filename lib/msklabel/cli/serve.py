"""Start the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msklabel.catalogue import app_folder
from msklabel.options import describe_keys


def serve(
    studies: Annotated[str, typer.Option(help="Folder of images, or address of a DICOMweb server (a PACS).")],
    models: Annotated[
        list[str] | None, typer.Option(help="Systems to serve, comma-separated or one each time; all by default.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs --token-file.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    token_file: Annotated[Path | None, typer.Option(help="One user:token[:role] a line, readable by you only.")] = None,
    openid_issuer: Annotated[
        str | None, typer.Option(help="OpenID Connect issuer that signs people in, such as a realm of Keycloak.")
    ] = None,
    openid_client: Annotated[str, typer.Option(help="Name of this server at the issuer.")] = "msklabel",
    openid_secret_file: Annotated[Path | None, typer.Option(help="File with the secret of this server there.")] = None,
    openid_roles: Annotated[str, typer.Option(help="Claim that lists a user's roles.")] = "realm_access.roles",
    session_days: Annotated[
        float, typer.Option(min=0.01, max=365, help="Days after which a browser has to sign in anew, used or not.")
    ] = 7,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="Address of a reverse proxy whose word on the client's address counts.")
    ] = None,
    conf: Annotated[list[str] | None, typer.Option("--conf", metavar="KEY VALUE", help=f"{describe_keys()}.")] = None,
) -> None:
    """Start the server on a folder of images or a PACS."""
    from msklabel.serve.run import serve as run
    from msklabel.serve.settings import ServeSettings

    settings = ServeSettings(
        host=host,
        port=port,
        token_file=token_file,
        trusted_proxies=tuple(trusted_proxy or ()),
        openid_issuer=openid_issuer,
        openid_client=openid_client,
        openid_secret_file=openid_secret_file,
        openid_roles=openid_roles,
        session_at_most_s=session_days * 24 * 3600,
    )
    given = dict(pair.split("=", 1) for pair in conf or ())
    run(str(app_folder()), studies, {**given, **({"models": ",".join(models)} if models else {})}, settings)
