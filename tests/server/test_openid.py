"""Signing in at an OpenID Connect issuer, with a browser and as 3D Slicer does it; what is not right is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from issuer import SECRET, Issuer, running_issuer
from live import Site, slicer_client, start

from msklabel.errors import UserError
from msklabel.serve import openid as module
from msklabel.serve.openid import NotSignedIn, OpenId, OpenIdOptions
from msklabel.serve.web_sessions import COOKIE

PEOPLE = {
    "rita": ("rita-password", ["offline_access", "msklabel-reviewer", "msklabel-annotator"]),
    "anna": ("anna-password", ["annotator"]),
    "zoe": ("zoe-password", ["offline_access"]),
}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Issuer]]:
    """Our server, and the issuer that signs people in."""
    folder = tmp_path_factory.mktemp("openid")
    (folder / "secret").write_text(SECRET, encoding="utf-8")
    with running_issuer(PEOPLE) as issuer:
        ours = start(folder, openid_issuer=issuer.url, openid_secret_file=str(folder / "secret"))
        yield ours, issuer
        ours.stop()


def valid(site: Site, token: str) -> requests.Response:
    return requests.get(f"{site.url}/info/", headers={"Authorization": f"Bearer {token}"}, timeout=60)


def who(session: requests.Session, site: Site) -> dict[str, Any]:
    return session.get(f"{site.url}/auth/token/valid", timeout=60).json()


def test_a_browser_is_signed_in_and_keeps_a_cookie_that_no_script_reads(hospital: tuple[Site, Issuer]) -> None:
    site, _ = hospital
    with requests.Session() as browser:
        answer = browser.get(f"{site.url}/auth/openid?next=/ohif/", timeout=60)
        assert answer.url == f"{site.url}/ohif/"
        assert (who(browser, site)["username"], who(browser, site)["roles"][-1]) == ("rita", "reviewer")
        cookie = next(cookie for cookie in browser.cookies if cookie.name == COOKIE)
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert str(cookie.get_nonstandard_attr("SameSite")).lower() == "lax"
        assert browser.get(f"{site.url}/msk/versions", timeout=60).status_code == 200
        browser.delete(f"{site.url}/auth/session", timeout=60)
        assert browser.get(f"{site.url}/msk/versions", timeout=60).status_code == 401


def test_a_state_of_another_browser_signs_nobody_in(hospital: tuple[Site, Issuer]) -> None:
    site, _ = hospital
    with requests.Session() as attacker, requests.Session() as victim:
        away = attacker.get(f"{site.url}/auth/openid", timeout=60, allow_redirects=False).headers["location"]
        back = attacker.get(away, timeout=60, allow_redirects=False).headers["location"]
        assert victim.get(back, timeout=60).status_code == 401
        assert COOKIE not in victim.cookies
        assert attacker.get(back, timeout=60).status_code == 401  # the state was used up


def test_who_has_no_role_is_told_so(hospital: tuple[Site, Issuer]) -> None:
    site, _ = hospital
    with requests.Session() as browser:
        answer = browser.get(f"{site.url}/auth/openid", headers={"X-As": "zoe"}, timeout=60)
    assert answer.status_code == 403
    assert "zoe has none of the roles" in answer.json()["detail"]


def test_slicers_client_signs_in_with_its_password(hospital: tuple[Site, Issuer], tmp_path: Path) -> None:
    module = slicer_client()
    client = module.MONAILabelClient(hospital[0].url, str(tmp_path), "anna")
    assert client.auth_enabled()
    client.update_auth(client.auth_token("anna", "anna-password"))
    assert client.auth_valid_token()
    assert client.info()["name"] == "msklabel"
    with pytest.raises(module.MONAILabelClientException):
        client.auth_token("anna", "wrong")


def test_roles_of_the_token_are_held_to(hospital: tuple[Site, Issuer]) -> None:
    site, issuer = hospital
    headers = {"Authorization": f"Bearer {issuer.token(issuer.claims('anna'))}"}
    address = f"{site.url}/msk/versions/hip_tissue_ct/rollback"
    assert requests.post(address, headers=headers, json={}, timeout=60).status_code == 403


def public_pem(issuer: Issuer) -> bytes:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return issuer.key.public_key().public_bytes(serialization.Encoding.PEM, kind)


def hs256_with_the_public_key(issuer: Issuer) -> str:
    """The classic confusion of algorithms, signed by hand, as the library refuses to."""

    def part(value: Any) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    head = part({"alg": "HS256", "typ": "JWT", "kid": issuer.kid}) + b"." + part(issuer.claims("rita"))
    mark = base64.urlsafe_b64encode(hmac.new(public_pem(issuer), head, hashlib.sha256).digest()).rstrip(b"=")
    return (head + b"." + mark).decode()


def without(issuer: Issuer, claim: str) -> str:
    return issuer.token({key: value for key, value in issuer.claims("rita").items() if key != claim})


OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ROLES = {"realm_access": {"roles": ["msklabel-reviewer"]}}  # a mapper may put them into every token


def untyped(issuer: Issuer, **other: Any) -> dict[str, Any]:
    """An access token of an issuer that has no claim ``typ``."""
    claims = issuer.claims("rita", **other)
    del claims["typ"]
    return claims


FORGED: dict[str, Callable[[Issuer], str]] = {
    "another audience": lambda i: i.token(i.claims("rita", aud="account")),
    "another issuer": lambda i: i.token(i.claims("rita", iss="https://evil.example")),
    "expired": lambda i: i.token(i.claims("rita", exp=int(time.time()) - 120)),
    "from the future": lambda i: i.token(i.claims("rita", nbf=int(time.time()) + 600)),
    "another key": lambda i: i.token(i.claims("rita"), key=OTHER_KEY),
    "an unknown key": lambda i: i.token(i.claims("rita"), key=OTHER_KEY, kid="other"),
    "no signature": lambda i: jwt.encode(i.claims("rita"), None, algorithm="none", headers={"kid": i.kid}),
    "a symmetric key": hs256_with_the_public_key,
    "no audience": lambda i: without(i, "aud"),
    "no end": lambda i: without(i, "exp"),
    "changed": lambda i: i.token(i.claims("anna"))[:-8] + "AAAAAAAA",
    "no token": lambda i: "a.b.c",
    "an ID token": lambda i: i.token(i.id_claims("rita", **ROLES)),
    "an ID token with scope": lambda i: i.token(i.id_claims("rita", scope="openid", **ROLES)),
    "an ID token without typ": lambda i: i.token(untyped(i, scope="openid", nonce="n")),
    "no kind of token": lambda i: i.token(untyped(i)),
    "a refresh token": lambda i: i.token(i.claims("rita", typ="Refresh")),
    "a logout token": lambda i: i.token(i.claims("rita"), typ="logout+jwt"),
}
ACCESS: dict[str, Callable[[Issuer], str]] = {
    "Keycloak": lambda i: i.token(i.claims("rita")),
    "Keycloak before 25": lambda i: i.token(i.claims("rita", nonce="n")),
    "RFC 9068": lambda i: i.token(untyped(i), typ="at+jwt"),
    "another issuer": lambda i: i.token(untyped(i, scope="openid profile")),
}


@pytest.mark.parametrize("shape", ACCESS)
def test_a_right_token_gets_in(hospital: tuple[Site, Issuer], shape: str) -> None:
    site, issuer = hospital
    assert valid(site, ACCESS[shape](issuer)).status_code == 200


@pytest.mark.parametrize("forged", FORGED)
def test_a_token_that_is_not_right_does_not(hospital: tuple[Site, Issuer], forged: str) -> None:
    site, issuer = hospital
    answer = valid(site, FORGED[forged](issuer))
    assert answer.status_code == 401
    assert len(answer.json()["detail"]) < 150


def test_keys_that_the_issuer_changed_are_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.0)
    with running_issuer(PEOPLE) as issuer:
        known = OpenId(OpenIdOptions(issuer.url))
        assert known.identify(issuer.token(issuer.claims("anna"))).name == "anna"
        issuer.key, issuer.kid = rsa.generate_private_key(public_exponent=65537, key_size=2048), "second"
        assert known.identify(issuer.token(issuer.claims("rita"))).role == "reviewer"


def test_tokens_are_still_known_while_the_issuer_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_issuer(PEOPLE) as issuer:
        known = OpenId(OpenIdOptions(issuer.url))
        known.identify(issuer.token(issuer.claims("anna")))
    monkeypatch.setattr(module, "_KEYS_S", 0.0)
    assert known.identify(issuer.token(issuer.claims("rita"))).role == "reviewer"
    with pytest.raises(NotSignedIn):
        known.identify(issuer.token(issuer.claims("rita"), key=OTHER_KEY))


def test_an_issuer_in_clear_text_is_refused() -> None:
    with pytest.raises(UserError, match="expected an https address"):
        OpenId(OpenIdOptions("http://login.example.org/realms/hospital"))


def test_an_issuer_that_is_down_is_one_sentence() -> None:
    with pytest.raises(UserError, match="cannot be reached") as error:
        OpenId(OpenIdOptions("http://127.0.0.1:9/realms/x")).send_away("http://127.0.0.1/back", "/")
    assert error.value.status == 502
