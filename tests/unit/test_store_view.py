"""What a thread reads within one view of the store is of one moment, until it writes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event
from store_samples import ABDUCTORS, SHAPE, TISSUES, blocks, scan, store, write

from msklabel.store.database import Database
from msklabel.store.datastore import MskDatastore
from msklabel.store.labels import Overtaken, Submission
from msklabel.store.schema import LabelVersion


@pytest.fixture
def data(tmp_path: Path) -> MskDatastore:
    """A store with one scan."""
    scan(tmp_path / "studies" / "scan1.nii.gz")
    return store(tmp_path / "studies")


def elsewhere(work: Callable[[], object]) -> None:
    """Do something in another thread, as another request would."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def database_of(data: MskDatastore) -> Database:
    return data.store.images._database


def test_what_others_write_meanwhile_is_not_seen(data: MskDatastore) -> None:
    with data.store.one_view():
        assert data.store.leases.held() == {}
        elsewhere(lambda: data.store.leases.take(["scan1"], "ann", 60))
        assert data.store.leases.held() == {}
    assert data.store.leases.held() == {"scan1": "ann"}


def test_what_it_writes_itself_is_seen_and_what_others_wrote_before_that(data: MskDatastore) -> None:
    with data.store.one_view():
        assert data.store.images.get("scan1").info == {}
        elsewhere(lambda: data.update_image_info("scan1", {"site": "north"}))
        data.store.leases.take(["scan1"], "ann", 60)
        assert data.store.leases.held() == {"scan1": "ann"}
        assert data.store.images.get("scan1").info == {"site": "north"}
        data.update_image_info("scan1", {"site": "south"})
        assert data.get_image_info("scan1")["site"] == "south"


def test_after_a_write_that_failed_it_sees_the_present_too(data: MskDatastore) -> None:
    """A submission that was overtaken looks again at what came before it."""
    with data.store.one_view():
        assert data.store.leases.held() == {}
        elsewhere(lambda: data.store.leases.take(["scan1"], "ann", 60))
        with pytest.raises(Overtaken), database_of(data).write():
            raise Overtaken
        assert data.store.leases.held() == {"scan1": "ann"}


def test_nothing_that_was_read_is_written_by_chance(data: MskDatastore) -> None:
    with data.store.one_view():
        image = data.store.images.get("scan1")
        image.site = "nowhere"  # of a copy in memory
        data.store.leases.take(["scan1"], "ann", 60)
        assert data.store.images.get("scan1").site is None
        data.store.images.get("scan1").site = "nowhere"
    assert data.store.images.get("scan1").site is None


def test_views_within_each_other_are_one_and_threads_have_their_own(data: MskDatastore) -> None:
    seen: list[dict[str, str]] = []
    with data.store.one_view():
        with data.store.one_view():
            data.store.leases.held()
            elsewhere(lambda: data.store.leases.take(["scan1"], "ann", 60))
            elsewhere(lambda: seen.append(data.store.leases.held()))
        assert data.store.leases.held() == {}
    assert seen == [{"scan1": "ann"}]


def test_after_an_error_reads_are_single_again(data: MskDatastore) -> None:
    with pytest.raises(RuntimeError), data.store.one_view():
        data.store.leases.held()
        raise RuntimeError
    elsewhere(lambda: data.store.leases.take(["scan1"], "ann", 60))
    assert data.store.leases.held() == {"scan1": "ann"}


def test_many_reads_are_one_transaction(data: MskDatastore) -> None:
    begun: list[object] = []
    event.listen(database_of(data).engine, "begin", begun.append)
    with data.store.one_view():
        for _ in range(5):
            data.store.leases.held()
    assert len(begun) == 1


def test_a_label_that_was_overtaken_within_a_view_follows_the_other(
    data: MskDatastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two annotators submit slices of one scan at the same time; both are kept."""
    drawn = np.zeros((2, *SHAPE), np.uint8)
    drawn[0, 1:4, 1:4, 1], drawn[1, 1:4, 1:4, 2] = 5, 5
    hers, his = (write(tmp_path / f"{name}.nii.gz", array) for name, array in zip("ab", drawn, strict=True))
    add = data.store.labels.add

    def add_late(submission: Submission, once: bool = False) -> LabelVersion:
        monkeypatch.setattr(data.store.labels, "add", add)
        elsewhere(lambda: data.submit("scan1", his, "final", {"annotated": {"slices": [2]}}))
        return add(submission, once)

    monkeypatch.setattr(data.store.labels, "add", add_late)
    with data.store.one_view():
        assert data.store.labels.history("scan1") == []
        version = data.submit("scan1", hers, "final", {"annotated": {"slices": [1]}})
    assert version.annotated["slices"] == [1, 2]


def test_what_was_read_already_is_not_asked_again(data: MskDatastore) -> None:
    asked: list[str] = []
    event.listen(database_of(data).engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    with data.store.one_view():
        assert data.store.images.get("scan1") is data.store.images.get("scan1")
        assert data.store.labels.finished("final") == set()
        assert data.store.labels.submissions("final") == 0
        assert len([text for text in asked if "FROM image" in text]) == 1
        assert len([text for text in asked if "max(review.id)" in text]) == 1


def test_how_many_were_submitted_counts_those_that_were_removed(data: MskDatastore, tmp_path: Path) -> None:
    counted = []
    for value in (1, 2, 3):
        data.submit("scan1", write(tmp_path / "label.nii.gz", blocks(value)), "final", {})
        counted.append(data.store.labels.submissions("final"))
        data.remove_label("scan1", "final")
    assert counted == [1, 2, 3]
    assert data.store.labels.submissions("final", [TISSUES.name]) == 3
    assert data.store.labels.submissions("final", [ABDUCTORS.name]) == data.store.labels.submissions("original") == 0


def test_who_sees_an_older_state_has_nothing_counted_twice(data: MskDatastore, tmp_path: Path) -> None:
    label = write(tmp_path / "label.nii.gz", blocks(1))
    labels = data.store.labels
    assert labels.submissions("final") == 0
    with data.store.one_view():
        assert data.store.leases.held() == {}
        elsewhere(lambda: data.submit("scan1", label, "final", {}))
        elsewhere(lambda: labels.submissions("final"))
        labels.submissions("final")
    assert labels.submissions("final") == 1 and labels.finished("final") == {"scan1"}
