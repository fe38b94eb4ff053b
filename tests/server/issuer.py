"""A small OpenID Connect issuer on a free port, in the shape of Keycloak: real keys, real signatures."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT, SECRET = "msklabel", "client-secret"


@dataclass
class Issuer:
    """A running issuer.

    Attributes:
        url: Its address.
        people: Password and roles of each user.
        codes: What was handed to browsers and not fetched yet.
    """

    url: str = ""
    people: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    key: Any = field(default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048))
    kid: str = "first"

    def claims(self, name: str, **other: Any) -> dict[str, Any]:
        """What an access token says of a user."""
        now = int(time.time())
        known = {"iss": self.url, "aud": CLIENT, "sub": f"id-of-{name}", "preferred_username": name, "typ": "Bearer"}
        return {**known, "iat": now, "exp": now + 300, "realm_access": {"roles": self.people[name][1]}, **other}

    def id_claims(self, name: str, **other: Any) -> dict[str, Any]:
        """What an ID token says: no roles, as Keycloak has it."""
        claims = self.claims(name, typ="ID", at_hash="x", **other)
        del claims["realm_access"]
        return claims

    def token(
        self, claims: dict[str, Any], key: Any = None, algorithm: str = "RS256", kid: str = "", typ: str = "JWT"
    ) -> str:
        """Sign."""
        headers = {"kid": kid or self.kid, "typ": typ}
        return jwt.encode(claims, key or self.key, algorithm=algorithm, headers=headers)

    def keys(self) -> dict[str, Any]:
        """As published."""
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": self.kid, "use": "sig", "alg": "RS256"}]}

    def exchange(self, form: dict[str, str]) -> dict[str, str] | None:
        """Tokens for a code or a password; None for nobody."""
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, SECRET):
            return None
        if form["grant_type"] == "password":
            password, _ = self.people.get(form["username"], ("", []))
            return {"access_token": self.token(self.claims(form["username"]))} if form["password"] == password else None
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return None
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            return None
        identity = self.id_claims(asked["name"], nonce=asked["nonce"])
        return {"id_token": self.token(identity), "access_token": self.token(self.claims(asked["name"]))}


@contextmanager
def running_issuer(people: dict[str, tuple[str, list[str]]]) -> Iterator[Issuer]:
    """Start one; the header ``X-As`` names who signs in with a browser."""
    issuer = Issuer(people=people)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            if path.endswith("/.well-known/openid-configuration"):
                addresses = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "certs"}
                self.answer({"issuer": issuer.url, **{key: f"{issuer.url}/{end}" for key, end in addresses.items()}})
            elif path.endswith("/certs"):
                self.answer(issuer.keys())
            else:
                code = secrets.token_urlsafe(8)
                issuer.codes[code] = query | {"name": self.headers.get("X-As", "rita")}
                self.send_response(302)
                back = urlencode({"code": code, "state": query["state"]})
                self.send_header("Location", f"{query['redirect_uri']}?{back}")
                self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            given = issuer.exchange({key: values[0] for key, values in parse_qs(body).items()})
            self.answer(given or {"error": "invalid_grant"}, 200 if given else 400)

        def answer(self, told: dict[str, Any], status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_address[1]}/realms/hospital"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield issuer
        server.shutdown()
