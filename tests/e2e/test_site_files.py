"""The files that set up a whole site: nothing has a default password, what matters lies on volumes."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_install import ROOT, run
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import UserError
from msklabel.serve.ohif.fetch import PACKAGE, VERSION

FILES = ("compose.yaml", "folder.yaml")


def services(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker" / name).read_text())["services"]
    return found


@pytest.mark.skipif(sys.version_info < (3, 11), reason="compose-lint needs Python 3.11")
@pytest.mark.parametrize("name", FILES)
def test_it_passes_its_linter(name: str) -> None:
    result = run(Path(sys.prefix) / "bin" / "compose-lint", ROOT / "docker" / name)
    assert result.returncode == 0, result.stdout


def test_the_pacs_has_no_default_password_and_nobody_else_sees_its_web_port() -> None:
    pacs = services("compose.yaml")["orthanc"]
    users = pacs["environment"]["ORTHANC__REGISTERED_USERS"]
    assert re.fullmatch(r'\{"msklabel": "\$\{PACS_PASSWORD:\?.+\}"\}', users)
    assert pacs["environment"]["ORTHANC__AUTHENTICATION_ENABLED"] == "true"
    assert not [port for port in pacs["ports"] if port.endswith(":8042")]


@pytest.mark.parametrize("name", FILES)
def test_our_server_asks_who_it_is_and_listens_on_this_machine(name: str) -> None:
    service = services(name)["msklabel"]
    assert "--token-file=/run/secrets/tokens" in service["command"]
    assert service["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]


def test_scans_and_labels_lie_on_volumes() -> None:
    both = services("compose.yaml")
    assert "scans:/var/lib/orthanc/db" in both["orthanc"]["volumes"]
    assert "state:/state" in both["msklabel"]["volumes"]
    assert "--conf=state=/state" in both["msklabel"]["command"]


@pytest.mark.parametrize("name", FILES)
def test_secrets_are_files_because_a_read_only_container_takes_no_other(name: str) -> None:
    tree = yaml.safe_load((ROOT / "docker" / name).read_text())
    assert tree["services"]["msklabel"]["read_only"] is True
    assert all(list(secret) == ["file"] for secret in tree["secrets"].values())


def test_the_two_sites_share_no_volume() -> None:
    assert len({yaml.safe_load((ROOT / "docker" / name).read_text())["name"] for name in FILES}) == len(FILES)


def test_the_image_holds_the_version_of_ohif_that_is_known() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert f"npm pack --silent {PACKAGE}@{VERSION}\n" in dockerfile
    assert f"msklabel.serve.ohif.fetch /ohif/ohif-app-{VERSION}.tgz" in dockerfile


def test_the_command_line_takes_the_address_of_a_pacs_as_it_is() -> None:
    address = "http://user:secret@127.0.0.1:9/dicom-web"
    result = CliRunner().invoke(app, ["serve", "--studies", address, "--port", "0"])
    assert isinstance(result.exception, UserError)
    assert "no user or password in an address" in str(result.exception)
