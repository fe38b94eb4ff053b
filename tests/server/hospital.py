"""Our server before a real PACS, and what the panel asks of it for a series."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import requests
import torch
from live import Site, start, wait_for
from orthanc import Orthanc, running_orthanc, upload
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from msklabel.catalogue import load_catalogue
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.sections import Label
from msklabel.store.pacs import Pacs
from msklabel_phantoms.write import generate


@dataclass(frozen=True)
class Hospital:
    """A PACS and our server before it.

    Attributes:
        ours: The server.
        pacs: As our server sees it.
        orthanc: The PACS itself.
        state: Our server's state folder.
    """

    ours: Site
    pacs: Pacs
    orthanc: Orthanc
    state: Path

    def shown(self, uid: str, system: str) -> dict[str, Any]:
        """What the panel gets for a series that it opens."""
        answer = self.ours.ask("GET", f"/msk/viewer/label?image={uid}&system={system}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def draft(self, uid: str, model: str) -> dict[str, Any]:
        """The last line of a segmentation."""
        answer = self.ours.ask("POST", f"/msk/viewer/segment?image={uid}&model={model}")
        assert answer.status_code == 200, answer.text
        return dict(json.loads(answer.text.splitlines()[-1]))

    def submit(self, uid: str, system: str, drawn: np.ndarray) -> None:
        """Submit a label, axes (column, row, frame), with its frames in an order that only a viewer could have."""
        answer = self.submitted(uid, system, drawn)
        assert answer.status_code == 200, answer.text

    def submitted(self, uid: str, system: str, drawn: np.ndarray, **notes: object) -> requests.Response:
        """The answer to the same, with more notes."""
        frames = self.shown(uid, system)["frames"]
        order = np.random.default_rng(0).permutation(len(frames))
        pictures = np.concatenate([drawn[..., k].T.reshape(-1) for k in order]).tobytes()
        return self.ours.ask(
            "PUT",
            f"/msk/viewer/label?image={uid}&system={system}",
            data={"params": json.dumps({"frames": [frames[k] for k in order], **notes})},
            files={"label": ("label.gz", gzip.compress(pictures))},
        )

    def segmentation(self, uid: str) -> pydicom.Dataset:
        """The segmentation of a series in the PACS, once it is there."""
        return wait_for(lambda: self._segmentation(uid), 60)

    def log(self) -> str:
        """What our server's log says."""
        return (self.state / "logs" / "server.log").read_text(encoding="utf-8")

    def _segmentation(self, uid: str) -> pydicom.Dataset | None:
        for listed in self.pacs.segmentations():
            found = self.pacs.get(listed.study, listed.uid, self.pacs.instances(listed.study, listed.uid)[0])
            if str(found.ReferencedSeriesSequence[0].SeriesInstanceUID) == uid:
                return found
        return None


@contextlib.contextmanager
def hospital(
    folder: Path, files: Iterable[Path], models: Sequence[str], trained: Sequence[str] = ()
) -> Iterator[Hospital]:
    """Start both.

    Args:
        folder: Where everything is.
        files: DICOM files of the PACS.
        models: Systems that are served.
        trained: Those of them that have a version, of random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "password").write_text("secret\n", encoding="utf-8")
    conf = {"dicomweb_user": "pacs", "dicomweb_password_file": str(folder / "password"), "auto_train": "false"}
    conf |= {"state": str(folder / "state"), "models": ",".join(models)}
    for name, system in load_catalogue(None, tuple(trained), "demo").items() if trained else ():
        torch.manual_seed(0)
        versions = Versions(folder / "state" / "models")
        versions.publish(name, versions.add(system, [weights_of(build_network(system))], {}).name)
    with running_orthanc(folder / "orthanc") as pacs:
        upload(pacs.address, *files)
        url = f"{pacs.address}/dicom-web"
        quiet = {"exchange_pause_s": 1.0, "scoring_delay_s": 0}  # scoring would fetch every series
        ours = start(folder / "ours", pacs=url, conf=conf, **quiet)
        yield Hospital(ours, Pacs(url, "pacs", "secret"), pacs, folder / "state")
        ours.stop()


def pixels(answer: Mapping[str, Any]) -> np.ndarray:
    """The label in an answer, axes (column, row, frame)."""
    shape = (len(answer["frames"]), answer["rows"], answer["columns"])
    return (
        np.frombuffer(gzip.decompress(base64.b64decode(answer["labels"])), np.uint8).reshape(shape).transpose(2, 1, 0)
    )


def by_reference(
    segmentation: pydicom.Dataset, frames: Sequence[tuple[str, int]], scheme: Mapping[str, Label]
) -> np.ndarray:
    """The label that one of our segmentations holds, by nothing but the images and frames that it names.

    Args:
        segmentation: Binary.
        frames: SOP Instance UID and number of each frame of the scan; of single images the number is 1.
        scheme: Labels of its system.

    Returns:
        Axes (column, row, frame).
    """
    planes = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    found = np.zeros((segmentation.Columns, segmentation.Rows, len(frames)), np.uint8)
    for own, plane in zip(segmentation.PerFrameFunctionalGroupsSequence, planes, strict=True):
        source = own.DerivationImageSequence[0].SourceImageSequence[0]
        number = frames.index((str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber") or 1)))
        segment = segmentation.SegmentSequence[own.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1]
        found[plane.T > 0, number] = scheme[segment.TrackingID.split(":")[1]].index
    return found


def marks(shape: tuple[int, ...]) -> np.ndarray:
    """A label that no turn, shift or exchange of frames leaves as it is; axes (column, row, frame)."""
    drawn = np.zeros(shape, np.uint8)
    drawn[: shape[0] // 3, : shape[1] // 4, : (shape[2] + 1) // 2] = 1
    drawn[-2:, -3:, -1] = 2
    for frame in range(shape[2]):
        drawn[shape[0] // 2 : shape[0] // 2 + 1 + frame, shape[1] // 2, frame] = 3
    return drawn


def phantom_ct(system: str) -> np.ndarray:
    """Stored values of a small hip, 12 bits, axes (column, row, slice) of an upright series; see ``PHANTOM_MM``."""
    hu = generate(system, 7, 0, shape=(48, 36, 4), spacing_mm=PHANTOM_MM).image[0]
    return np.rint(np.clip(hu, -1024, 3000) + 1024)[::-1, ::-1]


PHANTOM_MM = (8.0, 8.0, 5.0)


def foreign_seg(sources: Sequence[pydicom.Dataset], array: np.ndarray, names: Mapping[int, str]) -> pydicom.Dataset:
    """A segmentation as another program writes it: its own numbers and codes, segments told by their names only.

    Args:
        sources: Images, in the order of their slices, or one multi-frame image.
        array: Axes (column, row, frame).
        names: Of the segments, by number.
    """
    organ = codes.SCT.Organ
    described = [
        hd.seg.SegmentDescription(number, name, codes.SCT.Tissue, organ, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, name in names.items()
    ]
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=array.transpose(2, 1, 0),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Elsewhere",
        manufacturer_model_name="Workstation",
        software_versions="1",
        device_serial_number="1",
        content_creator_name="Else^Where",
    )
