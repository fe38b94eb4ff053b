"""``msklabel infer`` shows how far it is."""

import io

import pytest
from rich.console import Console

from msklabel.cli import infer
from msklabel.predict.progress import report


def test_the_bar_says_that_it_gets_ready_and_then_which_window_it_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(infer, "console", Console(file=screen, force_terminal=True, width=100))
    with infer._shown_progress():
        told = report()
        assert told is not None
        told(0, 40)
        before = screen.getvalue()
        told(10, 40)
    shown = screen.getvalue().removeprefix(before)
    assert "getting ready" in before and "%" not in before
    assert "segmenting" in shown and "25%" in shown
    assert report() is None
