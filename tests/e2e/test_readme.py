"""What the README says is so: its table, its links, its commands; and no tracked file knows a particular machine."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from monailabel.main import Main

from msklabel.catalogue import load_catalogue
from msklabel.cli import app, joined_conf
from msklabel.imaging.read import read_labels, read_scan
from msklabel.options import Options
from msklabel_phantoms.write import write_phantoms

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def shell_lines() -> list[str]:
    """Every command of the README's ``sh`` blocks, without its comment."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = [line.partition(" # ")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


def commands(program: str) -> list[str]:
    return [line for line in shell_lines() if shlex.split(line)[0] == program]


def tracked_files() -> Iterator[tuple[str, str]]:
    """Name and text of each text file that git knows or would take up."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content:
            yield name, content.decode("utf-8")


def test_every_command_is_of_a_kind_that_is_tested_here() -> None:
    first_words = {shlex.split(line)[0] for line in shell_lines()}
    assert first_words == {"make", "msklabel", "monailabel", "."}


def test_the_table_of_systems_is_what_configs_say() -> None:
    header = "| system | what it segments | images | labels | network |\n|---|---|---|---|---|\n"
    rows = [
        f"| `{system.name}` | {system.title} | {', '.join(system.modality)} | {len(system.labels)} "
        f"| {system.network.name} |\n"
        for system in load_catalogue().values()
    ]
    assert header + "".join(rows) + "\n" in README


def test_every_link_and_every_file_it_names_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    local = [link for link in links if not link.startswith("https://")]
    names = re.findall(r"`((?:apps|configs|docker|docs|lib|sample_data|tests)/[^\s`]*)`", README)
    missing = [name for name in local + names if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("line", commands("make"))
def test_every_make_target_and_variable_exists(line: str) -> None:
    targets = [word for word in shlex.split(line)[1:] if "=" not in word]
    variables = [word.partition("=")[0] for word in shlex.split(line)[1:] if "=" in word]
    for target in targets:
        assert re.search(rf"^{target}:.*##", MAKEFILE, re.MULTILINE), target
    for variable in variables:
        assert re.search(rf"^{variable}\s*\?=", MAKEFILE, re.MULTILINE), variable


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z]+)[^`]*`", README))))
def test_every_make_target_in_the_text_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*##", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("line", commands("msklabel"))
def test_every_msklabel_command_is_understood(line: str, tmp_path: Path) -> None:
    name, *arguments = joined_conf(shlex.split(line)[1:])
    group = typer.main.get_command(app)
    with group.make_context("msklabel", [name, *arguments]) as context:
        found, command, rest = group.resolve_command(context, [name, *arguments])  # type: ignore[attr-defined]
        assert found == name
        parsed = command.make_context(name, rest)
        Options.from_conf(str(tmp_path), dict(pair.split("=", 1) for pair in parsed.params.get("conf") or ()))
        models = ",".join(parsed.params.get("models") or ()).split(",")
        assert set(filter(None, models)) <= set(load_catalogue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with one scan under the name that the README uses."""
    folder = tmp_path_factory.mktemp("readme")
    (phantom,) = write_phantoms("hip_tissue_ct", folder, count=1, seed=3, shape=(96, 72, 4), spacing_mm=(4, 4, 5))
    shutil.copy(phantom, folder / "scan.nii.gz")
    return folder


@pytest.mark.parametrize(
    "line", [line for line in commands("msklabel") if shlex.split(line)[1] in ("systems", "infer", "versions")]
)
def test_quick_commands_run_as_they_stand(line: str, folder: Path) -> None:
    words = [str(folder / "images") if word == "/data/hips" else word for word in shlex.split(line)[1:]]
    program = Path(sys.prefix) / "bin" / "msklabel"
    ended = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    if words[0] == "systems":
        assert all(name in ended.stdout for name in load_catalogue())
    if words[0] == "infer":
        label, scan = read_labels(folder / "tissues.nii.gz"), read_scan(folder / "scan.nii.gz")
        np.testing.assert_array_equal(label.affine, scan.affine)
        assert len(np.unique(label.array)) > 5


@pytest.mark.parametrize("line", commands("monailabel"))
def test_the_stock_servers_command_is_understood(line: str) -> None:
    options = Main().args_parser().parse_args(shlex.split(line)[1:])
    assert (ROOT / options.app / "main.py").is_file()
    conf = dict(options.conf)
    assert set(conf["models"].split(",")) <= set(load_catalogue(profile=conf["profile"]))


def test_no_tracked_file_knows_a_path_of_this_machine_or_a_package_registry() -> None:
    here = rf"{re.escape(str(ROOT))}\b" if len(ROOT.parts) > 2 else r"(?!)"
    homes = r"/(?:root|Users/\w+|home/(?!msklabel\b)\w+)/"
    registries = r"(?:pypi|pythonhosted|pytorch|npmjs|conda|anaconda)\.(?:org|com)/(?:simple|whl|packages)|/simple/\w"
    found = [
        f"{name}: {match.group()}"
        for name, text in tracked_files()
        for match in re.finditer(rf"{here}|{homes}|{registries}", text)
        if name != Path(__file__).relative_to(ROOT).as_posix()
    ]
    assert found == []


def test_the_changelog_has_a_place_for_what_comes() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "\n## [Unreleased]\n" in changelog
