"""Heat maps: red where the model doubts, seen from the feet as radiologists do."""

import io

import numpy as np
import pytest
from PIL import Image as Picture
from test_preprocess import AFFINES, body_in_air, make_system
from test_summary import Features

from msklabel.choose.heatmap import heatmap_png, overlay
from msklabel.errors import UserError
from msklabel.imaging import Scan
from msklabel.predict.engine import Engine


def redness(png: bytes) -> np.ndarray:
    picture = np.asarray(Picture.open(io.BytesIO(png))).astype(int)
    return picture[..., 0] - picture[..., 1]


@pytest.mark.parametrize("name", ["RAS", "LPS"])
def test_the_doubt_is_where_it_belongs(name: str) -> None:
    sure, _ = body_in_air((40, 36, 10))
    hu = sure.copy()
    hu[8:14, 24:28, 6] = 342  # half one label, half the other; at the first end of one stored axis, the far of the next
    engine = Engine(make_system(spacing_mm=[None] * 3), Features())
    scan = Scan(hu[None], AFFINES[name])
    red = redness(heatmap_png(engine, scan, 6)) - redness(heatmap_png(engine, Scan(sure[None], AFFINES[name]), 6))
    rows, columns = np.nonzero(red > 0.7 * red.max())
    anterior, right = (True, False) if name == "RAS" else (False, True)
    assert (rows.mean() < red.shape[0] / 2) == anterior
    assert (columns.mean() < red.shape[1] / 2) == right
    assert np.array_equal(redness(heatmap_png(engine, scan)), redness(heatmap_png(engine, scan, 6)))


def test_a_slice_that_is_not_there_is_told() -> None:
    engine = Engine(make_system(), Features())
    with pytest.raises(UserError, match="slices 0 to 9"):
        heatmap_png(engine, Scan(body_in_air((20, 20, 10))[0][None], np.eye(4)), 10)


def test_certain_pixels_stay_grey() -> None:
    image, values = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3), np.zeros((4, 3), np.float32)
    values[0, 0] = 1
    colours = overlay(image, values).astype(int)
    assert colours.shape == (3, 4, 3)
    assert (colours[..., 0] != colours[..., 1]).sum() == 1
    assert colours[-1, -1, 0] > colours[-1, -1, 1]
