"""What is segmented ahead is kept for one state of things, bounded, and gives way to whoever waits."""

import tempfile
import threading
import time
from pathlib import Path

import pytest

from msklabel.errors import UserError
from msklabel.imaging.files import stamp_of
from msklabel.jobs.precedence import PRECEDENCE, Precedence
from msklabel.predict.ahead import Ahead, Question
from msklabel.predict.progress import report
from msklabel.serve.prefetch import Prefetch


def question(path: str = "a", version: str | None = "0001", system: str = "hip", suffix: str = ".nrrd") -> Question:
    return Question(system, path, (), suffix, (version,))


def put(ahead: Ahead, folder: Path, asked: Question) -> None:
    file = folder / f"result{asked.suffix}"
    file.write_text(asked.path)
    ahead.put(asked, file, {"model_version": asked.versions[0]})


def test_a_result_is_copied_out_as_often_as_it_is_asked_for(tmp_path: Path) -> None:
    ahead = Ahead(4)
    put(ahead, tmp_path, question())
    for _ in range(2):
        found = ahead.take(question())
        assert found
        file, facts = Path(found[0]), found[1]
        assert (file.read_text(), file.suffix, facts) == ("a", ".nrrd", {"model_version": "0001"})
        file.unlink()
    assert ahead.take(question(suffix=".nii.gz")) is None
    assert ahead.take(question(version="0002")) is None


def test_results_of_another_version_go_when_the_first_of_a_new_one_comes(tmp_path: Path) -> None:
    ahead = Ahead(4)
    for asked in (question("a"), question("b"), question("a", system="thigh"), question("c", "0002")):
        put(ahead, tmp_path, asked)
    assert [ahead.holds(q) for q in (question("a"), question("b"))] == [False, False]
    assert ahead.holds(question("a", system="thigh"))
    assert ahead.holds(question("c", "0002"))


def test_what_was_longest_not_asked_for_goes_first_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ahead = Ahead(2)
    put(ahead, tmp_path, question("a"))
    put(ahead, tmp_path, question("b"))
    ahead.take(question("a"))
    put(ahead, tmp_path, question("c"))
    assert [ahead.holds(question(path)) for path in "abc"] == [True, False, True]
    assert len(list(tmp_path.glob("msklabel-ahead-*/*/*"))) == 2
    ahead.close()
    assert not list(tmp_path.glob("msklabel-ahead-*"))
    assert not ahead.holds(question("a"))
    put(ahead, tmp_path, question("a"))
    assert ahead.holds(question("a"))


def test_a_scans_stamp_changes_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    file = tmp_path / "series" / "1.dcm"
    file.write_text("one")
    before = stamp_of(tmp_path / "series"), stamp_of(file)
    (tmp_path / "series" / ".used").touch()  # as the folder of a series that came from a PACS has it
    assert stamp_of(tmp_path / "series") == before[0]
    file.write_text("other")
    assert stamp_of(tmp_path / "series") != before[0]
    assert stamp_of(file) != before[1]


def test_a_scans_stamp_changes_with_all_that_is_read_of_it(tmp_path: Path) -> None:
    names = ("p1_water.nii.gz", "p1_fat.nii.gz", "p2_fat.nii.gz", "hip.png")
    water, fat, other, radiograph = (tmp_path / name for name in names)
    for file in (water, fat, other, radiograph):
        file.write_text("one")
    before = stamp_of(water, ("in_phase", "out_of_phase")), stamp_of(water, ("mr",)), stamp_of(radiograph)
    for file in (fat, other):
        file.write_text("other")
    (tmp_path / "hip.json").write_text("{}")
    after = stamp_of(water, ("in_phase", "out_of_phase")), stamp_of(water, ("mr",)), stamp_of(radiograph)
    assert [first == second for first, second in zip(before, after, strict=True)] == [False, True, False]
    assert [name for name, *_ in after[0]] == ["p1_water.nii.gz", "p1_fat.nii.gz"]


class Slowly:
    """Takes ten windows for a scan; ``b`` cannot be segmented."""

    def __init__(self, models: tuple[str, ...] = ()) -> None:
        self.started: list[str] = []
        self.done: list[str] = []
        self.asked: list[tuple[dict, int]] = []
        self.models = dict.fromkeys(models, False)
        self.unreadable = False
        self.loaded: list[str] = []

    def behind(self) -> dict[str, bool]:
        return dict(self.models)

    def load(self, model: str) -> None:
        self.loaded.append(model)
        if model == "broken":
            raise RuntimeError("out of memory")
        del self.models[model]

    def likely_next(self, request: dict, most: int) -> list[tuple[str, str]]:
        self.asked.append((request, most))
        if not most and self.unreadable:
            raise OSError("the database is locked")
        return [("hip", image) for image in ("a", "b", "c")][:most]

    def serving(self, model: str) -> str:
        return "0001"

    def lacks(self, request: dict) -> bool:
        return request["image"] not in self.done

    def predict_ahead(self, request: dict) -> None:
        self.started.append(request["image"])
        if request["image"] == "b":
            raise UserError("too short")
        for window in range(10):
            told = report()
            assert told
            told(window, 10)
            time.sleep(0.02)
        self.done.append(request["image"])


def wait_until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_gives_way_to_whoever_waits_and_goes_on_afterwards(tmp_path: Path) -> None:
    app, busy = Slowly(), threading.Event()
    prefetch = Prefetch(app, Precedence(tmp_path / PRECEDENCE), busy.is_set, 3)
    prefetch.start()
    time.sleep(0.1)
    assert not app.started
    prefetch.asked({"strategy": "first", "client_id": "anna"})
    wait_until(lambda: app.started)
    busy.set()
    time.sleep(0.5)
    assert app.done == []
    busy.clear()
    prefetch.asked({"strategy": "first", "client_id": "ben"})
    wait_until(lambda: app.done == ["a", "c"])
    prefetch.asked({"strategy": "first"})
    time.sleep(0.2)
    prefetch.close()
    assert app.started.count("b") == 1


def test_while_somebody_waits_it_does_not_even_look_what_is_next(tmp_path: Path) -> None:
    app, busy = Slowly(), threading.Event()
    prefetch = Prefetch(app, Precedence(tmp_path / PRECEDENCE), busy.is_set, 3)
    busy.set()
    prefetch.start()
    prefetch.asked({"strategy": "first"})
    time.sleep(0.3)
    assert app.asked == []
    busy.clear()
    prefetch.asked({"strategy": "first"})
    wait_until(lambda: app.done == ["a", "c"])
    prefetch.close()


def test_models_are_loaded_before_anybody_asks(tmp_path: Path) -> None:
    app, busy = Slowly(("hip", "broken", "thigh")), threading.Event()
    prefetch = Prefetch(app, Precedence(tmp_path / PRECEDENCE), busy.is_set, 3)
    busy.set()
    prefetch.start()
    time.sleep(0.3)
    assert app.loaded == []
    busy.clear()
    for user in ("anna", "ben"):  # each time it looks again
        prefetch.asked({"strategy": "first", "client_id": user})
        wait_until(lambda: app.done == ["a", "c"])
    prefetch.close()
    assert app.loaded == ["hip", "broken", "thigh"]
    assert app.asked.count(({}, 0)) == 1 and app.asked[0] == ({}, 0)


def test_a_new_version_is_loaded_while_others_wait_if_the_one_before_answers_them(tmp_path: Path) -> None:
    app = Slowly(("hip", "thigh"))
    app.models["hip"] = True
    prefetch = Prefetch(app, Precedence(tmp_path / PRECEDENCE), lambda: bool(prefetch), 3)
    prefetch._begun = True
    prefetch.start()
    prefetch.asked({"strategy": "first"})
    wait_until(lambda: app.loaded)
    time.sleep(0.3)
    prefetch.close()
    assert app.loaded == ["hip"] and app.started == []


def test_scores_that_cannot_be_read_ahead_keep_nothing_else_from_it(tmp_path: Path) -> None:
    app = Slowly(("hip",))
    app.unreadable = True
    prefetch = Prefetch(app, Precedence(tmp_path / PRECEDENCE), lambda: False, 3)
    prefetch.start()
    wait_until(lambda: app.asked)
    prefetch.asked({"strategy": "first"})
    wait_until(lambda: app.loaded == ["hip"] and app.done == ["a", "c"])
    prefetch.close()
    assert app.asked.count(({}, 0)) == 1
