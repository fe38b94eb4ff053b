"""Sign in with OpenID Connect, as hospitals have it (Keycloak and its like).

OpenID Connect Core 1.0: the authorization code flow with PKCE (RFC 7636) for browsers, and the access token as bearer
for 3D Slicer. Of every token the signature is checked with the issuer's published keys, by algorithms with a public key
only, and issuer, audience, times and kind as well: an ID token is no access token (RFC 8725, 3.12). The role is the
highest of ours among those that the token names.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt

from msklabel.errors import Unreachable, UserError
from msklabel.serve.errors import Forbidden
from msklabel.serve.users import ROLES, User

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_REQUIRED = ("exp", "iat", "iss", "aud", "sub")
_LEEWAY_S = 30
_TIMEOUT_S = 5.0
_KEYS_S, _RETRY_S = 3600.0, 30.0
_PENDING_S, _MOST_PENDING = 600.0, 1000
_PREFIX = "msklabel-"
_ACCESS_HEADERS = ("at+jwt", "application/at+jwt")  # RFC 9068, 2.1
_ID_CLAIMS = frozenset({"nonce", "at_hash", "c_hash"})  # OpenID Connect Core 1.0, 2 and 3.3.2.11


class NotSignedIn(UserError):
    """The token or the code is not valid."""

    status = 401


@dataclass(frozen=True)
class OpenIdOptions:
    """Who signs people in.

    Attributes:
        issuer: Such as ``https://login.example.org/realms/hospital``.
        client: Name of this server there, and the audience that tokens must name.
        secret_file: Holds the client's secret; None for a public client.
        roles: Claim that lists roles, parts joined by dots.
    """

    issuer: str
    client: str = "msklabel"
    secret_file: Path | None = None
    roles: str = "realm_access.roles"


@dataclass(frozen=True)
class _Pending:
    """A browser that was sent to the issuer."""

    nonce: str
    verifier: str
    back: str
    page: str
    until: float


class OpenId:
    """One issuer; safe to use from several threads. Its methods wait for the issuer, so not for the event loop.

    Args:
        options: Who it is.

    Raises:
        UserError: If the issuer is no https address (or on this machine), or the secret cannot be read.
    """

    def __init__(self, options: OpenIdOptions) -> None:
        self.options = options
        self._issuer = options.issuer.rstrip("/")
        host = httpx.URL(self._issuer).host
        if not self._issuer.startswith("https://") and host not in ("127.0.0.1", "localhost", "::1"):
            raise UserError(f"--openid-issuer {self._issuer}: expected an https address")
        self._secret = _secret(options.secret_file)
        self._lock = threading.Lock()
        self._known: tuple[float, dict[str, Any], dict[str, Any]] = (float("-inf"), {}, {})
        self._pending: OrderedDict[str, _Pending] = OrderedDict()

    def send_away(self, back: str, page: str) -> tuple[str, str]:
        """Begin to sign a browser in.

        Args:
            back: Our address that the issuer sends the browser back to.
            page: Where it goes in the end.

        Returns:
            The address at the issuer, and the state that the browser must bring back.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with self._lock:
            self._pending[state] = _Pending(nonce, verifier, back, page, time.monotonic() + _PENDING_S)
            while len(self._pending) > _MOST_PENDING:
                self._pending.popitem(last=False)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self.options.client,
            "redirect_uri": back,
            "scope": "openid profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._address('authorization_endpoint')}?{urlencode(asked)}", state

    def take_back(self, code: str, state: str, brought: str) -> tuple[User, str]:
        """Finish to sign a browser in.

        Args:
            code: From the issuer.
            state: From the issuer.
            brought: The state that the browser was given when it was sent away.

        Returns:
            Who it is, and the page to go to.

        Raises:
            NotSignedIn: If this browser was not sent away by us just now, or the issuer does not take the code.
            Forbidden: If the user has no role here.
        """
        with self._lock:
            pending = self._pending.pop(state, None)
        if pending is None or pending.until < time.monotonic() or not hmac.compare_digest(state, brought):
            raise NotSignedIn("this sign-in was not begun here, or took too long; begin again")
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": pending.back}
        answer = self._token(form | {"code_verifier": pending.verifier})
        claims = self._claims(str(answer.get("id_token") or ""))
        if not hmac.compare_digest(str(claims.get("nonce") or ""), pending.nonce):
            raise NotSignedIn("the issuer answers another sign-in than this one; begin again")
        return self._user(claims, str(answer.get("access_token") or "")), pending.page

    def sign_in(self, name: str, password: str) -> str:
        """An access token for a program without a browser (RFC 6749, 4.3), which the issuer must allow this client.

        Raises:
            NotSignedIn: If the issuer does not take name and password.
            Forbidden: If the user has no role here.
        """
        form = {"grant_type": "password", "username": name, "password": password, "scope": "openid profile"}
        token = str(self._token(form).get("access_token") or "")
        self.identify(token)
        return token

    def identify(self, token: str) -> User:
        """Whose access token it is.

        Raises:
            NotSignedIn: If it is not valid, or no access token.
            Forbidden: If the user has no role here.
            Unreachable: If the issuer's keys cannot be had.
        """
        return self._user(self._access_claims(token))

    def _claims(self, token: str) -> dict[str, Any]:
        """What a token says, once it is known to be right."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise NotSignedIn("the token is not signed as it should be")
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key(str(header.get("kid") or "")).key,
                algorithms=[header["alg"]],
                audience=self.options.client,
                issuer=self._discovered()["issuer"],
                leeway=_LEEWAY_S,
                options={"require": list(_REQUIRED)},
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise NotSignedIn("the token is not valid") from error
        return claims

    def _access_claims(self, token: str) -> dict[str, Any]:
        """The same of an access token."""
        claims = self._claims(token)
        if not is_access_token(jwt.get_unverified_header(token), claims):
            raise NotSignedIn("this is no access token; an ID token or another one does not sign in")
        return claims

    def _user(self, claims: Mapping[str, Any], access_token: str = "") -> User:
        name = str(claims.get("preferred_username") or claims["sub"])
        said = _roles(claims, self.options.roles)
        if not said and access_token:  # Keycloak names roles in the access token only, unless told otherwise
            other = self._access_claims(access_token)
            said = _roles(other, self.options.roles) if other["sub"] == claims["sub"] else set()
        held = [role for role in ROLES if role in said]
        if not held:
            raise Forbidden(f"{name} has none of the roles {', '.join(_PREFIX + role for role in ROLES)} at the issuer")
        return User(name, held[-1])

    def _key(self, kid: str) -> jwt.PyJWK:
        """The issuer's key of a name; fetched anew where it is not known, but not at every stranger's wish."""
        for may_fetch_after_s in (_KEYS_S, _RETRY_S):
            _, _, keys = self._fetched(may_fetch_after_s)
            if kid in keys:
                key: jwt.PyJWK = keys[kid]
                return key
        raise NotSignedIn("the token is signed with a key that the issuer does not publish")

    def _discovered(self) -> dict[str, Any]:
        return self._fetched(_KEYS_S)[1]

    def _address(self, name: str) -> str:
        return str(self._discovered()[name])

    def _fetched(self, older_than_s: float) -> tuple[float, dict[str, Any], dict[str, Any]]:
        """When, the issuer's description of itself, and its keys by name; those before where it cannot be reached."""
        with self._lock:
            _, described, keys = self._known
            if time.monotonic() - self._known[0] > older_than_s:
                try:
                    described, keys = self._published()
                except Unreachable:
                    if not keys:
                        raise
                self._known = time.monotonic(), described, keys
            return self._known

    def _published(self) -> tuple[dict[str, Any], dict[str, Any]]:
        described = self._get(f"{self._issuer}/.well-known/openid-configuration")
        if str(described.get("issuer", "")).rstrip("/") != self._issuer:
            raise Unreachable(f"the server at {self._issuer} calls itself {str(described.get('issuer'))[:100]}")
        keys = self._get(str(described["jwks_uri"])).get("keys") or []
        usable = [key for key in keys if key.get("kty") in ("RSA", "EC") and key.get("use", "sig") == "sig"]
        return described, {str(key.get("kid")): jwt.PyJWK(key) for key in usable}

    def _get(self, address: str) -> dict[str, Any]:
        try:
            answer = httpx.get(address, timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unreachable("the server that signs people in cannot be reached") from error
        return found

    def _token(self, form: Mapping[str, str]) -> dict[str, Any]:
        known = {"client_id": self.options.client} | ({"client_secret": self._secret} if self._secret else {})
        try:
            answer = httpx.post(
                self._address("token_endpoint"), data={**form, **known}, timeout=_TIMEOUT_S, trust_env=False
            )
            if answer.status_code >= 500:
                raise Unreachable(f"the server that signs people in answers {answer.status_code}")
            given: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise Unreachable("the server that signs people in cannot be reached") from error
        if answer.status_code != 200:
            raise NotSignedIn("the server that signs people in does not know this user and password, or this code")
        return given


def is_access_token(header: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    """Whether a valid token was made to be shown to servers.

    The header says so where the issuer follows RFC 9068. Keycloak says it in the claim ``typ``: ``Bearer``, beside
    ``ID``, ``Refresh`` and ``Logout``; before its version 25 all of them had a ``nonce``. Of other issuers it is known
    by its ``scope`` (RFC 9068, 2.2.3) and by what only ID tokens have.

    Args:
        header: Of the token.
        claims: Its content.
    """
    said = str(header.get("typ") or "JWT").lower()
    if said in _ACCESS_HEADERS:
        return True
    if said != "jwt":
        return False
    if "typ" in claims:
        return str(claims["typ"]).lower() == "bearer"
    return bool(claims.get("scope") or claims.get("scp")) and not _ID_CLAIMS & claims.keys()


def _roles(claims: Mapping[str, Any], path: str) -> set[str]:
    """Our roles among those that a token names, with or without our name before them."""
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    named = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return {str(role).removeprefix(_PREFIX) for role in named} & set(ROLES)


def _secret(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--openid-secret-file {file}: cannot be read: {error}") from error
