"""Files that are put in place whole have the rights that a new file has, or those of the one before; halves go."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from msklabel.durable import remove_left, replace_text
from msklabel.imaging import LabelMap
from msklabel.imaging.maps import write_map
from msklabel.imaging.write import write_labels

WRITERS = {
    "report.html": lambda file: replace_text(file, "x"),
    "labels.nii.gz": lambda file: write_labels(file, LabelMap(np.ones((3, 3, 3), np.uint8), np.eye(4))),
    "labels.nrrd": lambda file: write_labels(file, LabelMap(np.ones((3, 3, 3), np.uint8), np.eye(4))),
    "map.nii.gz": lambda file: write_map(file, np.ones((3, 3, 3), np.float32), np.eye(4)),
}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("name", WRITERS)
def test_colleagues_may_read_what_the_umask_lets_them(tmp_path: Path, name: str, umask: int) -> None:
    write: Callable[[Path], None] = WRITERS[name]
    before = os.umask(umask)
    try:
        write(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask
        (tmp_path / name).chmod(0o640)
        write(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
    finally:
        os.umask(before)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path: Path) -> None:
    for name in (".building-old", ".building-new", "0001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("w")
    for name in (".writing-old", ".writing-new"):
        (tmp_path / name).write_text("half")
    for old in (".building-old", ".writing-old", "0001"):
        os.utime(tmp_path / old, (0, 0))
    remove_left(tmp_path, ".*")
    assert {path.name for path in tmp_path.iterdir()} == {".building-new", ".writing-new", "0001"}
    remove_left(tmp_path / "away", ".*")
