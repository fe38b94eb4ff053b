"""Jobs are listed after a restart; one whose server was killed is lost, and said to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from live import DRAFT, Site, start, wait_for


def listed(site: Site, query: str = "?kind=batch_infer") -> list[dict[str, Any]]:
    answer = site.ask("GET", f"/msk/jobs{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def test_a_job_whose_server_was_killed_is_listed_as_lost(tmp_path: Path) -> None:
    first = start(tmp_path)
    try:
        done = first.ask("POST", f"/batch/infer/{DRAFT}?images=all&run_sync=true", json={"max_batch_size": 1})
        assert done.status_code == 200, done.text
        [finished], before = listed(first), first.ask("GET", "/batch/infer").json()
        assert (finished["status"], finished["request"]["model"]) == ("DONE", DRAFT)
        assert finished["started"] < finished["ended"] and "1 of 1" in finished["detail"]
        killed = first.ask("POST", f"/batch/infer/{DRAFT}?images=all").json()["id"]
        wait_for(lambda: listed(first)[0]["status"] == "RUNNING")
        assert listed(first)[0]["ended"] is None
    finally:
        first.process.kill()
        first.process.join(60)
    second = start(tmp_path)
    try:
        assert [(job["id"], job["status"]) for job in listed(second)] == [
            (killed, "LOST"),
            (finished["id"], "DONE"),
        ]
        assert [job["id"] for job in listed(second, "?newest=1")] == [killed]
        assert second.ask("GET", "/msk/jobs?kind=nothing").json()["detail"].startswith("kind 'nothing': expected one")
        assert second.ask("GET", "/batch/infer?check_if_running=true").status_code == 404
        last = second.ask("GET", "/batch/infer").json()
        assert (last["id"], last["status"], last["request"]["model"]) == (killed, "LOST", DRAFT)
        told = second.ask("GET", "/batch/infer?all=true").json()
        assert [(job["id"], job["status"]) for job in told] == [(finished["id"], "DONE"), (killed, "LOST")]
        assert {"id", "status", "request", "start_ts", "end_ts", "details"} == set(told[0])
        assert told[0]["request"] == before["request"] and told[0]["details"] == [finished["detail"]]
        assert second.ask("GET", "/train/").json()["detail"] == "there was no train job yet"
    finally:
        second.stop()


def test_a_job_of_a_killed_server_is_lost_and_one_of_another_that_lives_goes_on(tmp_path: Path) -> None:
    first, other = start(tmp_path), start(tmp_path)
    try:
        runs = [site.ask("POST", f"/batch/infer/{DRAFT}?images=all").json()["id"] for site in (first, other)]
        wait_for(lambda: {job["id"] for job in listed(first) if job["status"] != "SUBMITTED"} == set(runs))
        first.process.kill()
        first.process.join(60)
        again = start(tmp_path)
        try:
            told = {job["id"]: job["status"] for job in listed(again)}
            assert told[runs[0]] == "LOST"
            assert told[runs[1]] in ("RUNNING", "DONE")
            wait_for(lambda: {job["id"]: job["status"] for job in listed(again)}[runs[1]] == "DONE")
        finally:
            again.stop()
    finally:
        other.stop()
