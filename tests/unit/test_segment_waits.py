"""The benchmark of waits takes its idle times only once what runs the network has settled."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import segment_waits

# For each inference what ran it, and what the state folder says of backends afterwards.
ANSWERS = [
    ("eager", {"scan_s": 2.4}),  # slow: something faster is looked for
    ("eager", {"backend": "openvino"}),  # the trial has ended meanwhile
    ("eager", {"backend": "openvino"}),  # which is loaded
    ("openvino", {"backend": "openvino"}),
    ("openvino", {"backend": "openvino"}),
]


def test_idle_times_are_taken_after_the_trial_that_a_slow_network_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_waits, "_PAUSE_S", 0.01)
    due = iter(ANSWERS)

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            backend, known = next(due)
            (tmp_path / "backends.json").write_text(json.dumps({"toy": known}), encoding="utf-8")
            body = json.dumps({"label_names": {"muscle": 1}, "backend": backend}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        segment_waits._backend_settled(server.server_port, tmp_path, "scan")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert list(due) == []


@pytest.mark.parametrize(
    ("known", "due"), [({}, False), ({"a": {"scan_s": 3}}, True), ({"a": {"backend": "x"}}, False)]
)
def test_a_trial_is_due_where_a_network_is_slow_and_nothing_was_found(tmp_path: Path, known: dict, due: bool) -> None:
    assert not segment_waits._is_trial_due(tmp_path)
    (tmp_path / "backends.json").write_text(json.dumps(known), encoding="utf-8")
    assert segment_waits._is_trial_due(tmp_path) == due
