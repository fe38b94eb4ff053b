"""The Docker image's own install steps in a clean folder, and its two files under a linter."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import yaml

from msklabel.imaging.read import read_labels

ROOT = Path(__file__).resolve().parents[2]
PIP = ["python", "-m", "pip"]
DOCKERFILE, COMPOSE = ROOT / "docker" / "Dockerfile", ROOT / "docker" / "compose.yaml"


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    quick = {**os.environ, "UV_COMPILE_BYTECODE": "0", "PIP_NO_COMPILE": "0"}  # pip takes 0 for: do not compile
    words = [str(part) for part in command]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, env=quick)


def copied_paths() -> list[str]:
    """What the Dockerfile copies before it installs."""
    lines = [line.split()[1:-1] for line in DOCKERFILE.read_text().splitlines() if line.startswith("COPY")]
    return [path for line in lines for path in line]


def install_steps(python: Path) -> list[list[str]]:
    """The Dockerfile's commands that install packages, and then msklabel, with another Python."""
    lines = DOCKERFILE.read_text().replace("\\\n", "").splitlines()
    commands = [part.split() for line in lines if line.startswith("RUN ") for part in line[4:].split("&&")]
    commands = [[word for word in command if not word.startswith("--mount=")] for command in commands]
    found = [command for command in commands if command[0] == "docker/install.sh" or command[:3] == PIP]
    assert len(found) == 2
    return [[str(python) if word == "python" else word for word in step] for step in found]


def test_the_image_copies_no_code_before_the_packages_are_installed() -> None:
    before = DOCKERFILE.read_text().partition("RUN docker/install.sh")[0]
    assert [line.split()[1:-1] for line in before.splitlines() if line.startswith("COPY")] == [
        ["requirements.lock"],
        ["docker/install.sh"],
    ]


@pytest.mark.timeout(900)
def test_the_images_install_steps_give_a_working_command_in_a_clean_folder(tmp_path: Path) -> None:
    context = tmp_path / "context"
    for name in copied_paths():
        target = context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, target)
    for phantoms in (context / "sample_data").glob("*/images"):
        shutil.rmtree(phantoms.parent)
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    for step in install_steps(python):
        installed = run(*step, cwd=context)
        assert installed.returncode == 0, installed.stderr[-2000:]
    shutil.rmtree(context)

    command = python.parent / "msklabel"
    listed = run(command, "systems", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "hip_tissue_ct" in listed.stdout

    made = run(python, "-m", "msklabel_phantoms", "hip_tissue_ct", "--count", "1", "--out", "phantoms", cwd=tmp_path)
    image = Path(made.stdout.split()[0])
    labelled = run(command, "infer", image, "--model", "hip_tissue_ct_threshold", "-o", "out.nii.gz", cwd=tmp_path)
    assert labelled.returncode == 0, labelled.stderr
    assert set(np.unique(read_labels(tmp_path / "out.nii.gz").array)) == set(range(8))


def test_without_internet_it_installs_from_a_folder_or_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked of an index; the folder is that of ``make wheels``, here without a thing in it."""
    wanted = run("make", "-n", "wheels").stdout
    assert all(part in wanted for part in ["requirements.lock", "^torch==", "hatchling==", "editables"])
    venv.create(tmp_path / "env", with_pip=True)
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    result = run(ROOT / "docker" / "install.sh", tmp_path / "env" / "bin" / "python")
    assert result.returncode != 0
    assert "pypi" not in result.stderr.replace("pip.pypa.io", "")
    assert "without internet access, see make wheels in README.md" in result.stderr.splitlines()[-1]


def test_the_dockerfile_passes_its_linter() -> None:
    result = run(Path(sys.prefix) / "bin" / "hadolint", DOCKERFILE)
    assert result.returncode == 0, result.stdout


@pytest.mark.skipif(sys.version_info < (3, 11), reason="compose-lint needs Python 3.11")
def test_the_compose_file_passes_its_linter() -> None:
    result = run(Path(sys.prefix) / "bin" / "compose-lint", COMPOSE)
    assert result.returncode == 0, result.stdout


def test_the_container_is_no_root_has_a_health_check_and_keeps_its_state_on_a_volume() -> None:
    dockerfile = DOCKERFILE.read_text()
    assert "\nUSER 1000" in dockerfile
    assert "\nHEALTHCHECK" in dockerfile
    assert "\nARG TORCH_INDEX" in dockerfile
    service = yaml.safe_load(COMPOSE.read_text())["services"]["msklabel"]
    assert "state:/state" in service["volumes"]
    assert "--conf=state=/state" in service["command"]
    assert any("--token-file" in part for part in service["command"])
