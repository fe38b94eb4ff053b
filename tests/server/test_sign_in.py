"""Who gets in, what they may do, and what leaves the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from live import ADMIN_TOKEN, ANNOTATOR_TOKEN, DRAFT, SYSTEM, USER_TOKEN, Site

from msklabel.errors import UserError
from msklabel.serve.grants import ImageGrants
from msklabel.serve.settings import ServeSettings, is_loopback
from msklabel.serve.users import User, load_users


def no_token(site: Site, method: str, path: str, **headers: str) -> int:
    return site.ask(method, path, headers={"Authorization": "", **headers}).status_code


def test_every_documented_route_asks_for_a_token(token_site: Site) -> None:
    paths = token_site.ask("GET", "/openapi.json").json()["paths"]
    guarded = [(method, path) for path, methods in paths.items() for method in methods if not path.startswith("/auth/")]
    assert len(guarded) > 25
    for method, path in guarded:
        for place in (path, path.rstrip("/")):
            assert token_site.ask(method, place, token="x" * 20).status_code == 401, (method, place)
            assert no_token(token_site, method, place) == 401, (method, place)


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/auth/", "/auth"])
def test_public_pages_ask_for_none(token_site: Site, path: str) -> None:
    assert no_token(token_site, "GET", path) == 200


def test_a_server_without_token_file_says_so(open_site: Site) -> None:
    assert open_site.ask("GET", "/auth/").json()["enabled"] is False
    assert open_site.ask("GET", "/auth/token/valid").status_code == 200


def test_signing_in_gives_a_token_that_works(token_site: Site) -> None:
    assert token_site.ask("GET", "/auth/").json()["enabled"] is True
    form = {"username": "anna", "password": ANNOTATOR_TOKEN, "grant_type": "password"}
    answer = token_site.ask("POST", "/auth/token", data=form).json()
    assert answer["token_type"] == "bearer"
    who = token_site.ask("GET", "/auth/token/valid", token=answer["access_token"]).json()
    assert (who["username"], who["roles"]) == ("anna", ["user", "annotator"])


@pytest.mark.parametrize("form", [("anna", "x" * 20), ("ada", ANNOTATOR_TOKEN), ("", ANNOTATOR_TOKEN), ("anna", "")])
def test_wrong_pairs_do_not(token_site: Site, form: tuple[str, str]) -> None:
    answer = token_site.ask("POST", "/auth/token", data=dict(zip(("username", "password"), form, strict=True)))
    assert answer.status_code in (401, 422)
    assert token_site.ask("GET", "/auth/token/valid", token="x" * 20).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [
        ("PUT", "/datastore/label?image=hip_0", USER_TOKEN, 403),
        ("POST", f"/train/{SYSTEM}", USER_TOKEN, 403),
        ("POST", f"/batch/infer/{DRAFT}", ANNOTATOR_TOKEN, 403),
        ("DELETE", "/datastore/label?id=hip_0&tag=final", ANNOTATOR_TOKEN, 403),
        ("DELETE", "/datastore/label?id=hip_0&tag=final", ADMIN_TOKEN, 404),
        ("GET", "/logs/", ANNOTATOR_TOKEN, 403),
        ("GET", "/logs/", ADMIN_TOKEN, 200),
        ("GET", "/info/", USER_TOKEN, 200),
    ],
)
def test_roles(token_site: Site, method: str, path: str, token: str, status: int) -> None:
    assert token_site.ask(method, path, token=token).status_code == status


@pytest.mark.parametrize("other", ['settings={"a":1}', "list[]=1", "name=Müller", "flag"])
def test_cookies_of_other_servers_of_the_host_do_not_sign_a_browser_out(token_site: Site, other: str) -> None:
    form = {"username": "anna", "password": ANNOTATOR_TOKEN}
    session = token_site.ask("POST", "/auth/session", data=form).cookies["msklabel_session"]
    cookies = f"{other}; msklabel_session={session}".encode().decode("latin-1")
    for sent, status in ((cookies, 200), (f"{other}; msklabel_session=x".encode().decode("latin-1"), 401)):
        assert no_token(token_site, "GET", "/datastore/", Cookie=sent) == status


def test_saving_a_result_needs_the_role_of_saving_a_label(token_site: Site) -> None:
    form = {"params": (None, '{"save_label": true}')}
    answer = token_site.ask("POST", f"/infer/{DRAFT}?image=hip_0", token=USER_TOKEN, files=form)
    assert answer.status_code == 403


def test_the_author_is_who_signed_in(token_site: Site, tmp_path: Path) -> None:
    scan = (token_site.studies / "hip_0.nii.gz").read_bytes()
    form = {"params": (None, '{"user": "eve", "author": "eve"}'), "file": ("x.nii.gz", scan)}
    token_site.ask("PUT", "/datastore/?image=authored", files=form)
    info = token_site.ask("GET", "/datastore/image/info?image=authored").json()
    assert info["user"] == "anna"
    assert "eve" not in info.values()


def test_a_scan_needs_a_token_unless_it_was_just_given_to_this_address(token_site: Site) -> None:
    assert no_token(token_site, "GET", "/datastore/image?image=hip_1") == 401
    sample = token_site.ask("POST", "/activelearning/first").json()
    assert no_token(token_site, "GET", f"/datastore/image?image={sample['id']}") == 200
    assert no_token(token_site, "HEAD", f"/datastore/image?image={sample['id']}") == 200
    assert no_token(token_site, "GET", "/datastore/image?image=hip_1") == 401
    assert no_token(token_site, "DELETE", f"/datastore/image?id={sample['id']}") == 401
    forwarded = {"X-Forwarded-For": "127.0.0.1"}  # through a proxy that nobody vouched for: the address is not known
    assert no_token(token_site, "GET", f"/datastore/image?image={sample['id']}", **forwarded) == 401


def test_paths_of_this_machine_stay_on_it(open_site: Site) -> None:
    remote = {"X-Forwarded-For": "10.0.0.7"}
    assert "path" in open_site.ask("POST", "/activelearning/first").json()
    for method, path in (
        ("POST", "/activelearning/first"),
        ("GET", "/datastore/image/info?image=hip_0"),
        ("GET", "/datastore/?output=all"),
        ("GET", "/datastore/?output=train"),
        ("GET", "/info/"),
    ):
        assert str(open_site.studies) not in open_site.ask(method, path, headers=remote).text, path


def test_grants_are_for_one_address_one_image_and_a_time() -> None:
    grants = ImageGrants(60)
    grants.give("10.0.0.1", "a")
    assert grants.holds("10.0.0.1", "a")
    assert not grants.holds("10.0.0.2", "a")
    assert not grants.holds("10.0.0.1", "b")
    grants.give(None, "c")
    assert not grants.holds(None, "c")
    expired = ImageGrants(0)
    expired.give("10.0.0.1", "a")
    assert not expired.holds("10.0.0.1", "a")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_another_host_needs_a_token_file(host: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a token file"):
        ServeSettings(host=host)
    assert ServeSettings(host=host, token_file=tmp_path / "tokens").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert is_loopback(ServeSettings(host=host).host)


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("anna:0123456789abcdef", 0o644, "chmod 600"),
        ("", 0o600, "holds no user"),
        ("# only a comment\n\n", 0o600, "holds no user"),
        ("anna", 0o600, "line 1: expected user:token"),
        ("anna:short", 0o600, "shorter than 16"),
        ("anna:0123456789abcdef:chief", 0o600, "'chief' is not known; roles: user, annotator"),
        ("anna:0123456789abcdef\nada:0123456789abcdef", 0o600, "line 2: the token of ada is used twice"),
    ],
)
def test_a_token_file_that_cannot_be_used(tmp_path: Path, text: str, mode: int, says: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    with pytest.raises(UserError, match=says):
        load_users(file)


def test_a_token_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_users(tmp_path / "nope")


def test_tokens_tell_users_and_roles(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.touch(mode=0o600)
    file.write_text("anna:0123456789abcdef\nada:fedcba9876543210:admin\n", encoding="utf-8")
    users = load_users(file)
    assert users.identify("0123456789abcdef") == User("anna", "annotator")
    assert users.identify("fedcba9876543210") == User("ada", "admin")
    assert users.identify("0123456789abcdeF") is None
    assert users.sign_in("ada", "0123456789abcdef") is None
