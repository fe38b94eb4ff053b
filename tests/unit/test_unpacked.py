"""A web viewer's label is unpacked whole, however little it could be compressed, and never beyond its size."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from msklabel.errors import UserError
from msklabel.serve.routes.viewer import unpacked


@pytest.mark.parametrize("size", [1, 16, 70_000, 3 << 20])
@pytest.mark.parametrize("level", [0, 6])
def test_a_file_larger_than_what_it_holds_is_unpacked_whole(tmp_path: Path, size: int, level: int) -> None:
    held = random.Random(0).randbytes(size)
    file = tmp_path / "label"
    file.write_bytes(gzip.compress(held, level))
    assert file.stat().st_size > size
    assert unpacked(file, size) == held
    assert len(unpacked(file, size - 1)) == size


def test_no_more_is_unpacked_than_tells_that_it_is_too_much(tmp_path: Path) -> None:
    file = tmp_path / "label"
    file.write_bytes(gzip.compress(bytes(50 << 20)))
    assert unpacked(file, 1000) == bytes(1001)


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    file = tmp_path / "label"
    file.write_bytes(b"no gzip at all")
    with pytest.raises(UserError, match="damaged"):
        unpacked(file, 1000)
