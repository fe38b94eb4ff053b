"""How the server is reached, by whom, and within which limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from msklabel.errors import UserError


@dataclass(frozen=True)
class ServeSettings:
    """Settings of one server; cannot exist with a combination that is not safe.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        token_file: One ``user:token[:role]`` per line; without it and an issuer everybody gets in, on loopback only.
        openid_issuer: Address of an OpenID Connect issuer that signs people in, such as a realm of Keycloak.
        openid_client: Name of this server there.
        openid_secret_file: Holds its secret there; None for a public client.
        openid_roles: Claim that lists the roles of a user.
        max_upload_bytes: Limit of one request with files.
        max_json_bytes: Limit of any other request, and of the text fields beside files.
        cors_origins: Other web origins whose pages may call this server.
        allowed_hosts: Further names under which a server without sign-in may be addressed, beside those of loopback.
        trusted_proxies: Addresses of reverse proxies whose word on the client's address counts.
        image_grant_s: Seconds for which the client that was given a scan may fetch it without its token.
        session_s: Seconds for which a browser stays signed in without being used.
        session_at_most_s: Seconds after which everybody signs in anew, however much the browser is used.
        max_waiting_inferences: More are refused with 429.
        scoring_delay_s: Seconds without other work before scans are scored in the background; 0 for never.
        exchange_pause_s: Seconds between two looks for new segmentations in the PACS.
        prefetch_scans: So many scans are predicted before they are asked for, beside those that annotators have; 0 for
            none at all.
        stop_grace_s: Seconds between asking a job to stop and killing it.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    openid_issuer: str | None = None
    openid_client: str = "msklabel"
    openid_secret_file: Path | None = None
    openid_roles: str = "realm_access.roles"
    max_upload_bytes: int = 4 << 30
    max_json_bytes: int = 1 << 20
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    image_grant_s: float = 900.0
    session_s: float = 12 * 3600.0
    session_at_most_s: float = 7 * 24 * 3600.0
    max_waiting_inferences: int = 64
    scoring_delay_s: float = 60.0
    prefetch_scans: int = 2
    exchange_pause_s: float = 15.0
    stop_grace_s: float = 20.0

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.asks_who:
            raise UserError(
                f"host {self.host} can be reached from other machines: give a token file (--token-file FILE) "
                "or an issuer (--openid-issuer URL), or keep 127.0.0.1"
            )
        if "*" in self.cors_origins and not self.asks_who:
            raise UserError("cors_origins '*' without a token file would open the server to every web page")

    @property
    def asks_who(self) -> bool:
        """Whether people have to sign in."""
        return self.token_file is not None or self.openid_issuer is not None


def is_loopback(address: str | None) -> bool:
    """Whether an address or host name is that of the same machine, by the look of it alone."""
    if address is None:
        return False
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address.lower() == "localhost"
