"""What a system and each of its variants serve can be asked of the server, as a variant is rolled back by its name."""

from __future__ import annotations

from pathlib import Path

from live import start

from msklabel.catalogue import load_catalogue
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of

NAME, VARIANT = "thigh_dixon", "high_infiltration"


def test_versions_say_what_each_variant_serves(tmp_path: Path) -> None:
    system = load_catalogue(None, [NAME], "demo")[NAME]
    (tmp_path / "images").mkdir()
    versions = Versions(tmp_path / "images" / ".msklabel" / "models")
    for variant in ("", VARIANT):
        facts = {"fingerprint": system.fingerprint, "variant": variant}
        versions.add(system, [weights_of(build_network(system))], facts)
    versions.publish(NAME, "0001")
    site = start(tmp_path, conf={"models": NAME})
    try:
        path = f"/msk/versions/{NAME}"
        before = site.ask("GET", path).json()
        assert before["serving"] == "0001" and before["variants"] == {VARIANT: {"serving": None, "history": []}}
        asked = {"version": "0002", "variant": VARIANT}
        assert site.ask("POST", f"{path}/rollback", json=asked).json() == {"system": NAME, "serving": "0002"}
        after = site.ask("GET", path).json()
        assert after["serving"] == "0001" and after["variants"][VARIANT]["serving"] == "0002"
        assert [entry["version"] for entry in after["variants"][VARIANT]["history"]] == ["0002"]
        assert [entry["version"] for entry in after["history"]] == ["0001"]
        assert site.ask("GET", "/msk/versions").json() == {NAME: after}
    finally:
        site.stop()
