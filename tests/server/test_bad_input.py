"""What cannot be right is refused: the right status, one sentence, nothing on disk, and the server goes on."""

from __future__ import annotations

import gzip
import io
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
from live import DRAFT, SYSTEM, Site, wait_for, write_label
from PIL import Image

IMAGE = "hip_0"
TRAVERSALS = (
    "../hip_0",
    "..%2Fhip_0",
    "%2e%2e/hip_0",
    "..\\hip_0",
    "%2Fetc%2Fpasswd",
    "a%00b",
    ".msklabel/x",
    "a/../../b",
)


def scan(site: Site) -> nib.Nifti1Image:
    return nib.load(site.studies / f"{IMAGE}.nii.gz")


def label_of(array: np.ndarray, affine: np.ndarray) -> bytes:
    return gzip.compress(nib.Nifti1Image(array.astype(np.uint8), affine).to_bytes())


def good_label(site: Site) -> bytes:
    return label_of(site.phantoms[IMAGE].labels, site.phantoms[IMAGE].affine)


def shifted(site: Site) -> bytes:
    affine = site.phantoms[IMAGE].affine.copy()
    affine[0, 3] += 8
    return label_of(site.phantoms[IMAGE].labels, affine)


def flipped(site: Site) -> bytes:
    affine = site.phantoms[IMAGE].affine @ np.diag([-1, 1, 1, 1])
    return label_of(site.phantoms[IMAGE].labels, affine)


def finer(site: Site) -> bytes:
    return label_of(site.phantoms[IMAGE].labels, site.phantoms[IMAGE].affine @ np.diag([0.5, 0.5, 0.5, 1]))


def picture() -> bytes:
    """A grey PNG file that does not say how large its pixels are."""
    with io.BytesIO() as file:
        Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).save(file, "PNG")
        return file.getvalue()


@dataclass
class Bad:
    """A request that must be refused.

    Attributes:
        name: What is wrong.
        method: HTTP method.
        path: Path and query.
        status: Expected status.
        says: Part of the sentence.
        files: Form files from the site: field to (name, content).
        data: Form fields, or a body.
        body: JSON body.
    """

    name: str
    method: str
    path: str
    status: int
    says: str
    files: Callable[[Site], dict[str, Any]] | None = None
    data: Any = None
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, site: Site) -> Any:
        files = self.files(site) if self.files else None
        options = {"files": files, "data": self.data, "json": self.body, "headers": self.headers}
        return site.ask(self.method, self.path, **{key: value for key, value in options.items() if value})


def label(name: str, status: int, says: str, content: Callable[[Site], bytes], **more: Any) -> Bad:
    path = more.pop("path", f"/datastore/label?image={IMAGE}")
    filename = more.pop("filename", "label.nii.gz")
    return Bad(name, "PUT", path, status, says, lambda site: {"label": (filename, content(site))}, **more)


def upload(name: str, path: str, field_name: str, filename: str, content: bytes, says: str, status: int = 400) -> Bad:
    method = "POST" if path.startswith("/infer") else "PUT"
    return Bad(name, method, path, status, says, lambda site: {field_name: (filename, content)})


SYSTEM_PARAMS = {"params": json.dumps({"model": SYSTEM})}
DETACHED = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: /etc/passwd\n\n"
JSON = {"Content-Type": "application/json"}
INFO = f"/datastore/image/info?image={IMAGE}"
HUGE = 10**24
MR = bytes(nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.eye(4)).to_bytes())
GARBAGE = b"this is no image" * 100
NIFTI_2 = bytes(nib.Nifti2Image(np.ones((4, 3, 2), np.int16), np.eye(4)).to_bytes())

CASES = [
    # labels
    label("empty label", 400, "empty", lambda s: label_of(np.zeros(scan(s).shape), scan(s).affine)),
    label("label shifted", 400, "does not lie on its scan", shifted, data=SYSTEM_PARAMS),
    label("label flipped", 400, "does not lie on its scan", flipped, data=SYSTEM_PARAMS),
    label("label of another spacing", 400, "does not lie on its scan", finer, data=SYSTEM_PARAMS),
    label("label of another size", 400, "does not lie", lambda s: label_of(np.ones((9, 9, 4)), scan(s).affine)),
    label("unknown index", 400, "99", lambda s: label_of(np.full(scan(s).shape, 99), scan(s).affine)),
    label("label cut in half", 400, "label.nii.gz", lambda s: good_label(s)[: len(good_label(s)) // 2]),
    label("label is garbage", 400, "label.nii.gz", lambda s: GARBAGE),
    label("label is nothing", 400, "label.nii.gz", lambda s: b""),
    label("label names another file", 400, "another file", lambda s: DETACHED, filename="label.nrrd"),
    label("label of an unknown image", 404, "no image 'nope'", good_label, path="/datastore/label?image=nope"),
    label("label of an unknown model", 400, "'nope'", good_label, data={"params": '{"model": "nope"}'}),
    label("params are no JSON", 400, "not valid JSON", good_label, data={"params": "{"}),
    label("params are a list", 400, "JSON object", good_label, data={"params": "[1]"}),
    label("image is missing", 422, "'image'", good_label, path="/datastore/label"),
    upload("no label in the form", f"/datastore/label?image={IMAGE}", "x", "x.nii", b"1", "no file 'label'"),
    Bad("no form", "PUT", f"/datastore/label?image={IMAGE}", 400, "multipart/form-data", body={"a": 1}),
    *[
        label(f"tag {tag}", 400, "tag", good_label, path=f"/datastore/label?image={IMAGE}&tag={tag}")
        for tag in ("../x", "..%2F..%2Fx", "a/b", "%00", "final%0a", "." * 3, "x" * 65)
    ],
    *[
        label(f"label of image {image}", 404, "no image", good_label, path=f"/datastore/label?image={image}")
        for image in TRAVERSALS
    ],
    # images
    *[
        upload(f"upload as {image}", f"/datastore/?image={image}", "file", "x.nii.gz", GARBAGE, "id")
        for image in TRAVERSALS
    ],
    upload("image is garbage", "/datastore/?image=new", "file", "x.nii.gz", GARBAGE, "x.nii.gz"),
    upload("image is a text", "/datastore/image?image=new", "file", "x.txt", GARBAGE, "NIfTI"),
    upload("image names another file", "/datastore/?image=new", "file", "x.nrrd", DETACHED, "another file"),
    upload("image is NIfTI-2", "/datastore/?image=new", "file", "x.nii", NIFTI_2, "is NIfTI-2"),
    *(
        upload(f"no scale, {path}", path, name, "x.png", picture(), "put both into the studies folder")
        for path, name in (("/datastore/?image=new", "file"), ("/session/", "files"), (f"/infer/{DRAFT}", "file"))
    ),
    upload("image is too large", "/datastore/?image=new", "file", "x.nii", b"0" * (9 << 20), "MiB", status=413),
    *[
        Bad(f"download {image}", "GET", f"/datastore/image?image={image}", 404, "no image")
        for image in (*TRAVERSALS, "nope")
    ],
    Bad("remove the user's own", "DELETE", f"/datastore/?id={IMAGE}", 409, "never deleted"),
    Bad("checksum of no kind", "HEAD", f"/datastore/image?image={IMAGE}&check_sum=XX:12", 400, ""),
    Bad("wrong checksum", "HEAD", f"/datastore/image?image={IMAGE}&check_sum=SHA256:12", 404, ""),
    Bad("unknown listing", "GET", "/datastore/?output=everything", 422, "'output'"),
    Bad("label that is not there", "GET", f"/datastore/label?label={IMAGE}&tag=nope", 404, "nope"),
    Bad("label without tag", "GET", f"/datastore/label?label={IMAGE}", 422, "'tag'"),
    Bad("notes are no JSON", "PUT", f"/datastore/image/info?image={IMAGE}", 400, "JSON", data={"info": "{"}),
    Bad("notes are a list", "PUT", f"/datastore/image/info?image={IMAGE}", 400, "a JSON object", body=[1]),
    Bad("notes are a text", "PUT", f"/datastore/image/info?image={IMAGE}", 400, "not valid JSON", data="tall"),
    *(
        Bad(f"{height!r} tall", "PUT", INFO, 400, "height_cm: expected a number of cm", body={"height_cm": height})
        for height in ("tall", "172", 1.72, -172, True, [172])
    ),
    Bad("zip of no case", "GET", "/datastore/dataset?limit_cases=0", 400, "limit_cases"),
    # inference
    Bad("unknown model", "POST", f"/infer/nope?image={IMAGE}", 404, DRAFT),
    Bad("no scan named", "POST", f"/infer/{DRAFT}", 400, "image=ID"),
    Bad("unknown scan", "POST", f"/infer/{DRAFT}?image=nope", 404, "no image 'nope'"),
    *[Bad(f"infer {image}", "POST", f"/infer/{DRAFT}?image={image}", 404, "no image") for image in TRAVERSALS],
    Bad("path of the host", "POST", f"/infer/{DRAFT}?image=/etc/passwd", 404, "no image"),
    Bad("untrained model", "POST", f"/infer/{SYSTEM}?image={IMAGE}", 409, "no trained model"),
    Bad("unknown output", "POST", f"/infer/{DRAFT}?image={IMAGE}&output=x", 422, "'output'"),
    Bad("DICOM SEG of a folder", "POST", f"/infer/{DRAFT}?image={IMAGE}&output=dicom_seg", 400, "dicom_seg"),
    Bad("unknown session", "POST", f"/infer/{DRAFT}?session_id=../../x", 404, "no session"),
    *[
        Bad(
            f"option {key}={value}",
            "POST",
            f"/infer/{DRAFT}?image={IMAGE}",
            400,
            key,
            lambda s, key=key, value=value: {"params": (None, json.dumps({key: value}))},
        )
        for key, value in (
            ("result_extension", ".exe"),
            ("result_extension", "/../x.nii"),
            ("device", "cuda:/x"),
            ("label_tag", "../x"),
            ("result_dtype", "../../x"),
        )
    ],
    upload("infer garbage", f"/infer/{DRAFT}", "file", "x.nii.gz", GARBAGE, "x.nii.gz"),
    upload("draft of an MR scan", f"/infer/{DRAFT}", "file", "x.nii", MR, "hip_tissue_ct goes by Hounsfield units"),
    upload("infer a text", f"/infer/{DRAFT}", "file", "x.txt", GARBAGE, "x.txt"),
    upload("infer a header", f"/infer/{DRAFT}", "file", "x.nhdr", DETACHED, "x.nhdr"),
    upload("scribbles are a text", f"/infer/{DRAFT}?image={IMAGE}", "label", "x.py", GARBAGE, "x.py"),
    # sessions
    upload("session of garbage", "/session/", "files", "x.nii.gz", GARBAGE, "x.nii.gz"),
    upload("session of an archive", "/session/?uncompress=true", "files", "x.zip", GARBAGE, "archives"),
    upload("session of a zip", "/session/", "files", "x.zip", GARBAGE, "x.zip"),
    upload("session of nothing", "/session/", "nope", "x.nii.gz", GARBAGE, "'files'"),
    Bad("unknown session", "GET", "/session/5e1f", 404, "no session"),
    Bad("session outside", "GET", "/session/..%2f..%2f.msklabel", 404, ""),
    Bad("remove outside", "DELETE", "/session/..%2f..%2f.msklabel", 404, ""),
    # jobs
    Bad("train the unknown", "POST", "/train/nope", 404, SYSTEM),
    Bad("train no number", "POST", f"/train/{SYSTEM}", 400, "max_epochs", body={"max_epochs": [1]}),
    *(
        Bad(f"train {key} {value!r}", "POST", f"/train/{SYSTEM}", 400, f"{key}: expected {what}", body={key: value})
        for key, value, what in (
            ("max_epochs", 0, "a whole number from 1"),
            ("max_epochs", -3, "a whole number from 1"),
            ("max_epochs", 2.5, "a whole number from 1"),
            ("max_epochs", True, "a whole number from 1"),
            ("max_epochs", "ten", "a whole number from 1"),
            ("max_epochs", 1e30, "a whole number from 1"),
            ("folds", "0", "a whole number from 1"),
            ("seed", -1, "a whole number from 0"),
            ("on_all", "perhaps", "true or false"),
            ("from_scratch", 2, "true or false"),
        )
    ),
    Bad("train, misspelled", "POST", f"/train/{SYSTEM}", 400, "is max_epochs meant?", body={"max_epoch": 3}),
    Bad("train from no version", "POST", f"/train/{SYSTEM}", 404, "no version '0099'", body={"from_version": "0099"}),
    Bad("train no variant", "POST", f"/train/{SYSTEM}", 400, "variant", body={"variant": "thin"}),
    Bad("train all, one wrong", "POST", "/train/", 400, "max_epochs", body={SYSTEM: {"max_epochs": "many"}}),
    Bad("train on a path", "POST", f"/train/{SYSTEM}", 400, "gpus", body={"gpus": "../x"}),
    Bad("train with a list", "POST", f"/train/{SYSTEM}", 422, "dictionary", body=[1]),
    Bad(
        "body is no JSON",
        "POST",
        f"/train/{SYSTEM}",
        422,
        "JSON",
        data="{",
        headers=JSON,
    ),
    Bad("score the unknown", "POST", "/scoring/nope", 404, "dice"),
    Bad("score a path", "POST", "/scoring/dice", 400, "y_pred", body={"y_pred": "../../x"}),
    Bad("unknown batch", "POST", "/batch/infer/nope", 404, DRAFT),
    Bad("no number of scans", "POST", f"/batch/infer/{DRAFT}", 400, "a whole number", body={"max_batch_size": "x"}),
    Bad("unknown choice of scans", "POST", f"/batch/infer/{DRAFT}?images=some", 422, "'images'"),
    Bad("nothing runs", "GET", "/scoring/?check_if_running=true", 404, "no scoring job"),
    # ids that no database could hold
    Bad("compare with no version", "GET", f"/msk/labels/diff?a={HUGE}&b=1", 404, f"no label version {HUGE}"),
    Bad("measures of no version", "GET", f"/msk/quantities?version={HUGE}", 404, f"no label version {HUGE}"),
    Bad("review no version", "POST", "/msk/labels/review", 404, f"{HUGE}", body={"version": HUGE, "state": "accepted"}),
    # the rest
    Bad("unknown strategy", "POST", "/activelearning/nope", 404, "random"),
    Bad("tag of a path", "POST", "/activelearning/first", 400, "label_tag", body={"label_tag": "../x"}),
    *(
        Bad(f"next, misspelled {key}", "POST", "/activelearning/first", 400, f"is {meant} meant?", body={key: "x"})
        for key, meant in (("sytems", "systems"), ("slice", "slices"), ("models", "model"), ("round", "rounds"))
    ),
    *(
        Bad(f"client_id {value!r}", "POST", "/activelearning/first", 400, "expected a text", body={"client_id": value})
        for value in ({"a": 1}, ["a"], True)
    ),
    label("label of a client that is a list", 400, "client_id", good_label, data={"params": '{"client_id": [1]}'}),
    Bad("large JSON", "POST", "/activelearning/first", 413, "MiB", body={"x": "y" * (2 << 20)}),
    Bad("pickles are not taken", "PUT", f"/model/{SYSTEM}", 404, "nothing at"),
    Bad("wrong method", "PUT", "/info/", 405, "does not take PUT"),
    Bad("foreign page", "POST", "/activelearning/first", 403, "pages of", headers={"Origin": "http://evil.example"}),
    Bad("foreign name", "GET", "/info/", 403, "addressed", headers={"Host": "evil.example"}),
]


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_it_is_refused_and_nothing_stays(open_site: Site, bad: Bad) -> None:
    before, known = open_site.tree(), open_site.ask("GET", "/datastore/?output=all").json()
    answer = bad.send(open_site)
    assert answer.status_code == bad.status, answer.text
    if bad.method != "HEAD":
        detail = answer.json()["detail"]
        assert set(answer.json()) == {"detail"}
        assert bad.says in detail
        assert "\n" not in detail and "Traceback" not in detail and "/site-packages/" not in detail
    assert open_site.tree() == before
    assert open_site.ask("GET", "/datastore/?output=all").json() == known
    assert open_site.ask("GET", "/info/").status_code == 200


def test_options_that_are_not_a_clients_are_left_out(open_site: Site) -> None:
    sent = {"max_epochs": 1, "pretrained_path": "/etc/passwd", "tracking_uri": "http://x", "model": "other"}
    request = open_site.ask("POST", f"/train/{SYSTEM}", json=sent).json()["request"]
    assert request == {"max_epochs": 1, "model": SYSTEM}
    wait_for(lambda: open_site.ask("GET", "/train/?check_if_running=true").status_code == 404, 60)
    failed = open_site.ask("GET", "/train/").json()
    assert failed["status"] == "ERROR"
    assert "no labelled scans" in failed["details"][-1]


def test_an_upload_that_stops_half_way_leaves_nothing(open_site: Site) -> None:
    before = open_site.tree()
    place = urlsplit(open_site.url)
    with socket.create_connection((place.hostname, place.port)) as line:
        head = f"PUT /datastore/label?image={IMAGE} HTTP/1.1\r\nHost: {place.netloc}\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n"
        part = '--b\r\nContent-Disposition: form-data; name="label"; filename="l.nii.gz"\r\n\r\n'
        line.sendall((head + part).encode() + b"x" * 50_000)
        time.sleep(0.3)
    wait_for(lambda: open_site.tree() == before, 10)
    assert open_site.ask("GET", "/info/").status_code == 200


def test_a_body_without_its_last_boundary_is_refused(open_site: Site) -> None:
    before = open_site.tree()
    body = b'--b\r\nContent-Disposition: form-data; name="label"; filename="l.nii.gz"\r\n\r\nabc'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = open_site.ask("PUT", f"/datastore/label?image={IMAGE}", data=body, headers=headers)
    assert (answer.status_code, open_site.tree()) == (400, before)
    assert "cut off" in answer.json()["detail"]


def test_a_client_that_hangs_up_leaves_the_queue(open_site: Site) -> None:
    place = urlsplit(open_site.url)
    head = f"POST /infer/{DRAFT}?image={IMAGE} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 0\r\n\r\n"
    lines = [socket.create_connection((place.hostname, place.port)) for _ in range(40)]

    def waiting() -> int:
        lengths = open_site.ask("GET", "/info/").json()["msklabel"]["inference"]["cpu"]
        return lengths["waiting"] + lengths["running"]

    for line in lines:
        line.sendall(head.encode())
    wait_for(lambda: waiting() > 5, 10)
    for line in lines:
        line.close()
    time.sleep(0.2)
    assert waiting() <= 1
    wait_for(lambda: waiting() == 0, 20)
    wait_for(lambda: not open_site.left_over(), 10)


def test_errors_of_a_label_do_not_hinder_the_next(open_site: Site, tmp_path: Path) -> None:
    phantom = open_site.phantoms["hip_2"]
    file = write_label(tmp_path / "label.nii.gz", phantom.labels, phantom.affine)
    with file.open("rb") as stream:
        answer = open_site.ask("PUT", "/datastore/label?image=hip_2", files={"label": stream})
    assert answer.json() == {"image": "hip_2", "label": "hip_2", "version": 1, "warnings": []}


def test_notes_come_as_a_form_or_as_json(open_site: Site) -> None:
    def noted(**sent: Any) -> dict[str, Any]:
        assert open_site.ask("PUT", INFO, **sent).status_code == 200
        return dict(open_site.ask("GET", INFO).json())

    assert noted(data={"info": json.dumps({"height_cm": 172, "note": "a"})})["note"] == "a"
    assert noted(files={"info": (None, json.dumps({"note": "b"}))})["note"] == "b"
    assert noted(json={"note": "c"})["note"] == "c"
    told = noted(json={"info": {"note": "d"}})
    assert (told["note"], told["height_cm"], "info" in told) == ("d", 172, False)
    assert noted(json={"height_cm": None, "note": None})["height_cm"] is None


def test_a_viewers_label_may_be_as_large_as_any_other_label(open_site: Site) -> None:
    form = {"params": (None, '{"frames": []}'), "label": ("label", bytes(3 << 20))}
    answer = open_site.ask("PUT", f"/msk/viewer/label?image={IMAGE}&system={SYSTEM}", files=form)
    assert (answer.status_code, "web viewers need the scans in a PACS" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize("name", ["股関節" * 60, "x" * 300])
def test_a_files_name_may_be_long(open_site: Site, name: str) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="label"; filename="{name}.nii.gz"\r\n\r\n'
    body = head.encode() + good_label(open_site) + b"\r\n--b--\r\n"
    sent = {"data": body, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}
    assert open_site.ask("PUT", f"/datastore/label?image={IMAGE}&tag=named", **sent).status_code == 200
