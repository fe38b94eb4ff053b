"""OHIF's files, the pictures that it exchanges, and the sessions of its browsers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from dicom_samples import OBLIQUE, radiograph, series
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from starlette.responses import Response

from msklabel.errors import Conflict, NotFound, UserError
from msklabel.imaging.preview import preview_png
from msklabel.imaging.scan import LabelMap, Scan
from msklabel.imaging.viewer_frames import frames_of, from_pictures, to_pictures
from msklabel.serve.ohif import fetch as fetch_module
from msklabel.serve.ohif.fetch import fetch
from msklabel.serve.ohif.viewer import Viewer, find_viewer
from msklabel.serve.routes.auth import own_page
from msklabel.serve.users import User
from msklabel.serve.web_sessions import COOKIE, WebSessions

FRAMES = [("1.2", 1), ("1.3", 1), ("1.4", 1)]


@given(st.permutations(range(3)), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_pictures_in_any_order_make_the_same_label(order: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 8, (5, 4, 3), np.uint8)
    pictures = to_pictures(array[..., order])
    got = from_pictures(pictures, [FRAMES[place] for place in order], FRAMES, (5, 4))
    np.testing.assert_array_equal(got, array)


def test_a_picture_is_its_rows_one_after_the_other() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(3, 2, 1)  # column, row, slice
    assert list(to_pictures(array)) == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize(
    ("named", "size", "reason"),
    [
        (FRAMES[:2], 40, "lacks 1 of the 3"),
        ([*FRAMES[:2], ("9.9", 1)], 60, "lacks 1 of the 3"),
        ([*FRAMES, FRAMES[0]], 80, "has 4 slices"),
        ([FRAMES[0], FRAMES[0], FRAMES[1]], 60, "lacks 1"),
        (FRAMES, 59, "no 5 x 4 pixels"),
        (FRAMES, 61, "no 5 x 4 pixels"),
    ],
)
def test_pictures_of_other_frames_are_refused(named: list, size: int, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        from_pictures(bytes(size), named, FRAMES, (5, 4))


@pytest.mark.parametrize("turned", [False, True])
def test_frames_are_in_the_order_of_the_scan(tmp_path: Path, turned: bool) -> None:
    made = series(tmp_path / "s", **({"modality": "MR", "orientation": OBLIQUE} if turned else {}))
    assert frames_of(tmp_path / "s") == [(str(image.SOPInstanceUID), 1) for image in made]


def test_of_several_series_the_one_counts_that_the_folder_is_called_by(tmp_path: Path) -> None:
    first, second = series(tmp_path / "a", study="1.2"), series(tmp_path / "b", study="1.2")
    folder = tmp_path / str(second[0].SeriesInstanceUID)
    folder.mkdir()
    for name in ("a", "b"):
        for file in (tmp_path / name).iterdir():
            file.rename(folder / f"{name}-{file.name}")
    assert frames_of(folder) == [(str(image.SOPInstanceUID), 1) for image in second]
    assert len(first) == len(second)


def test_a_radiograph_is_one_frame(tmp_path: Path) -> None:
    image = radiograph(tmp_path / "cr.dcm")
    assert frames_of(tmp_path / "cr.dcm") == [(str(image.SOPInstanceUID), 1)]


def test_a_preview_of_a_radiograph_is_one_picture_with_the_right_on_the_left() -> None:
    array = np.zeros((1, 40, 1, 40), np.float32)  # right, anterior, superior
    array[0, 30:, 0, 30:] = 1  # the patient's left, above
    picture = np.asarray(Picture.open(io.BytesIO(preview_png(Scan(array, np.diag([-1.0, 1, 1, 1]), {}), None, {}))))
    assert picture.shape[:2] == (240, 240)
    assert picture[20, 220].max() > 200
    assert max(picture[20, 20].max(), picture[220, 220].max()) < 50


def test_planes_of_a_flat_stack_are_drawn_to_one_scale() -> None:
    scan = Scan(np.zeros((1, 60, 40, 5), np.float32), np.diag([2.0, 2.0, 4.0, 1]), {})  # 120 x 80 x 20 mm
    picture = Picture.open(io.BytesIO(preview_png(scan, None, {})))
    assert picture.height == 240  # 80 mm
    assert picture.width == 360 + 4 + 360 + 4 + 240


@pytest.mark.parametrize(("shape", "affine"), [((6, 4, 4), np.eye(4)), ((4, 4, 4), np.diag([1.0, 1, 2, 1]))])
def test_a_preview_of_a_scan_that_its_label_does_not_fit_is_refused(shape: tuple[int, ...], affine: np.ndarray) -> None:
    scan = Scan(np.zeros((1, 4, 4, 4), np.float32), np.eye(4), {})
    with pytest.raises(Conflict, match="no longer fit"):
        preview_png(scan, LabelMap(np.ones(shape, np.uint8), affine), {1: (255, 0, 0)})


def test_without_npm_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="npm is not installed"):
        fetch(tmp_path / "viewer")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_was_fetched_the_viewer_of_monai_label_is_served(tmp_path: Path) -> None:
    viewer = find_viewer(tmp_path / "none")
    assert viewer.bundled
    assert "OHIF" in viewer.file("").read_text(encoding="utf-8")
    assert "/proxy/dicom" in viewer.file("app-config.js").read_text(encoding="utf-8")
    assert viewer.file("viewer/some/study") == viewer.folder / "index.html"


def test_fetched_files_and_ours_are_served_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "viewer").mkdir()
    (tmp_path / "viewer" / "index.html").write_text("page", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    viewer = find_viewer(tmp_path / "viewer")
    assert viewer == Viewer(tmp_path / "viewer")
    assert "preRegistration" in viewer.file("app-config.js").read_text(encoding="utf-8")
    assert viewer.file("msklabel/panel.js").is_file()
    assert viewer.file("segmentation").read_text(encoding="utf-8") == "page"
    for path in ("../secret.txt", "msklabel/fetch.py", "msklabel/../viewer.py", "none.js"):
        with pytest.raises(NotFound):
            viewer.file(path)


@pytest.mark.parametrize(("at_most_s", "uses", "idle_s"), [(1000, 4, 61), (130, 2, 31)])
def test_a_session_lasts_while_it_is_used_and_no_longer_than_a_session_may(
    at_most_s: float, uses: int, idle_s: float
) -> None:
    now = [0.0]
    sessions = WebSessions(60, at_most_s, lambda: now[0])
    key = sessions.open(User("anna", "annotator"))
    for _ in range(uses):
        now[0] += 50
        assert sessions.user(f"other=1; {COOKIE}={key}") == User("anna", "annotator")
    now[0] += idle_s
    assert sessions.user(f"{COOKIE}={key}") is None


def test_the_browser_keeps_its_cookie_as_long_as_a_session_that_is_used() -> None:
    sessions, response = WebSessions(60, 1000), Response()
    sessions.set_cookie(response, sessions.open(User("anna", "annotator")), secure=True)
    assert "Max-Age=1000;" in response.headers["set-cookie"]


def test_a_closed_session_and_a_guessed_one_are_nobodys() -> None:
    sessions = WebSessions(60, 1000)
    key = sessions.open(User("anna", "annotator"))
    assert sessions.user(f"{COOKIE}={key}x") is None
    assert sessions.user("") is None
    sessions.close(f"{COOKIE}={key}")
    assert sessions.user(f"{COOKIE}={key}") is None


@pytest.mark.parametrize("page", ["/", "/ohif/segmentation?StudyInstanceUIDs=1.2&x=%2F"])
def test_own_pages_are_gone_to(page: str) -> None:
    assert own_page(page) == page


@pytest.mark.parametrize("page", ["", "x", "//evil", "/\\evil", "https://evil", "/a\nb", "/a b", "\\/evil"])
def test_no_others_are(page: str) -> None:
    assert own_page(page) == "/"
