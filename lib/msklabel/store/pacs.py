"""A DICOMweb server: what series it has (QIDO), their images (WADO) and storing ours (STOW), each with a time limit.

DICOM PS3.18; the requests are dicomweb-client's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from requests.adapters import HTTPAdapter

from msklabel.durable import flush
from msklabel.errors import Unreachable, UserError
from msklabel.imaging.pixel_data import require_readable, require_whole
from msklabel.imaging.scan import ImageError
from msklabel.store.files import storage_full_told

_PAGE = 200
_CONNECT_S, _READ_S = 5.0, 60.0
_AS_STORED = (("application/dicom", "*"),)  # not every server can unpack JPEG 2000; we can
_FIELDS = (
    *("StudyInstanceUID", "SeriesInstanceUID", "Modality", "PatientID", "InstitutionName", "SeriesDescription"),
    *("StudyDate", "StudyTime", "NumberOfSeriesRelatedInstances"),
)


@dataclass(frozen=True)
class Series:
    """A series as the server lists it.

    Attributes:
        study: Study Instance UID.
        uid: Series Instance UID.
        modality: Such as ``CT``.
        patient: Patient ID; empty where the server does not say.
        site: Institution Name, likewise.
        description: Series Description, likewise.
        date: Study Date, YYYYMMDD, likewise.
        time: Study Time, likewise.
        instances: Number of images; 0 where the server does not say.
    """

    study: str
    uid: str
    modality: str
    patient: str = ""
    site: str = ""
    description: str = ""
    date: str = ""
    time: str = ""
    instances: int = 0


class Pacs:
    """One DICOMweb server; safe to use from several threads.

    Args:
        url: Of the service, such as ``http://127.0.0.1:8042/dicom-web``.
        user: For HTTP's basic authentication; nobody by default.
        password: Of the user.
        timeouts_s: For a connection, and for silence in the middle of an answer.
    """

    def __init__(
        self,
        url: str,
        user: str | None = None,
        password: str | None = None,
        timeouts_s: tuple[float, float] = (_CONNECT_S, _READ_S),
    ) -> None:
        self.url = url.rstrip("/")
        self.auth = (user, password or "") if user else None
        self._timeouts_s = timeouts_s

    def series(self, modalities: Sequence[str]) -> Iterator[Series]:
        """All series of some modalities, page by page.

        Raises:
            Unreachable: If the server does not answer as it should.
        """
        for modality in modalities:
            for row in self._pages("search_for_series", {"Modality": modality}, _FIELDS):
                if row.get("SeriesInstanceUID") and row.get("StudyInstanceUID"):
                    yield _series(row, modality)

    def segmentations(self) -> Iterator[Series]:
        """All series of segmentations."""
        return self.series(["SEG"])

    def instances(self, study: str, series: str) -> list[str]:
        """SOP Instance UIDs of a series.

        Raises:
            Unreachable: If the server does not answer as it should.
        """
        where = {"study_instance_uid": study, "series_instance_uid": series}
        found = [str(row.get("SOPInstanceUID")) for row in self._pages("search_for_instances", {}, (), **where)]
        return sorted(set(found) - {"None"})

    def fetch(self, study: str, series: str, target: Path, progress: Callable[[int, int], None] | None = None) -> None:
        """Fetch all images of a series into a folder, one file each: all of them or none.

        Args:
            study: Study Instance UID.
            series: Series Instance UID.
            target: Must not be there yet; its parent must.
            progress: Called with images fetched and images in all.

        Raises:
            Unreachable: If the server does not answer, or sends another number of images than it lists, or one without
                all of its pixels.
            ImageError: If nothing here decodes the images.
            StorageFull: If they do not fit.
        """
        wanted = self.instances(study, series)
        if not wanted:
            raise Unreachable(f"the PACS lists no images of series {series}", 502)
        building = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
        try:
            with storage_full_told():
                got = self._save(study, series, building, len(wanted), progress)
            if set(wanted) - got:
                raise Unreachable(f"the PACS sent {len(got)} of {len(wanted)} images of series {series}")
            flush(building)
            building.chmod(0o755)
            building.rename(target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        flush(target.parent)

    def store(self, dataset: pydicom.Dataset) -> None:
        """Store one object.

        Raises:
            Unreachable: If the server does not answer, or refuses it.
        """
        with self._client() as client:
            answer = client.store_instances([dataset])
        if failed := answer.get("FailedSOPSequence"):
            raise Unreachable(f"the PACS refused the object, failure reason {failed[0].get('FailureReason')}", 502)

    def get(self, study: str, series: str, instance: str) -> pydicom.Dataset:
        """Fetch one object."""
        with self._client() as client:
            return client.retrieve_instance(study, series, instance, media_types=_AS_STORED)

    def _save(
        self, study: str, series: str, folder: Path, count: int, progress: Callable[[int, int], None] | None
    ) -> set[str]:
        got: set[str] = set()
        with self._client() as client:
            for dataset in client.iter_series(study, series, media_types=_AS_STORED):
                _require_pixels(dataset, series)
                file = folder / f"{len(got):05d}.dcm"
                dataset.save_as(file, write_like_original=False)
                flush(file)
                got.add(str(dataset.SOPInstanceUID))
                if progress:
                    progress(len(got), count)
        return got

    def _pages(
        self, search: str, filters: Mapping[str, str], fields: Sequence[str], **where: str
    ) -> Iterator[pydicom.Dataset]:
        """Rows of a QIDO search; ends where a page brings nothing new, as servers without paging repeat themselves."""
        seen: set[str] = set()
        while True:
            with self._client() as client:
                query = {"search_filters": dict(filters), "fields": list(fields), "limit": _PAGE, "offset": len(seen)}
                page = getattr(client, search)(**{key: value for key, value in query.items() if value}, **where)
            rows = [pydicom.Dataset.from_json(row) for row in page]
            fresh = [row for row in rows if str(row.get("SOPInstanceUID") or row.get("SeriesInstanceUID")) not in seen]
            yield from fresh
            seen |= {str(row.get("SOPInstanceUID") or row.get("SeriesInstanceUID")) for row in fresh}
            if not fresh or len(rows) < _PAGE:
                return

    @contextmanager
    def _client(self) -> Iterator[DICOMwebClient]:
        session = requests.Session()
        session.auth = self.auth
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Timed(self._timeouts_s))
        try:
            client = DICOMwebClient(self.url, session=session)
            client.set_http_retry_params(retry=False)
            yield client
        except requests.Timeout as error:
            raise Unreachable(f"the PACS at {self.url} does not answer in time", 504) from error
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else "an error"
            raise Unreachable(f"the PACS at {self.url} answers {status}", 502) from error
        except requests.RequestException as error:
            raise Unreachable(f"the PACS at {self.url} cannot be reached", 502) from error
        except UserError:
            raise
        except (ValueError, KeyError, pydicom.errors.InvalidDicomError, EOFError) as error:
            raise Unreachable(f"the PACS at {self.url} sends what is no DICOM: {error}", 502) from error
        finally:
            session.close()


class _Timed(HTTPAdapter):
    """Limits the time of every request; requests has no other way to do so for all of a session."""

    def __init__(self, timeouts_s: tuple[float, float]) -> None:
        self._timeouts_s = timeouts_s
        super().__init__()

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
        """Send within the time limits."""
        return super().send(request, **{**options, "timeout": self._timeouts_s})


def _require_pixels(image: pydicom.Dataset, series: str) -> None:
    require_readable(image, f"series {series}")
    if "SOPInstanceUID" not in image or "PixelData" not in image:
        raise Unreachable(f"the PACS sends a part of an image only: one of series {series} has no pixels", 502)
    try:
        require_whole(image, len(image.PixelData), str(image.SOPInstanceUID))
    except ImageError as error:  # it may come whole the next time
        raise Unreachable(f"the PACS sends a part of an image only: {error}", 502) from error


def _series(row: pydicom.Dataset, modality: str) -> Series:
    return Series(
        study=str(row.StudyInstanceUID),
        uid=str(row.SeriesInstanceUID),
        modality=str(row.get("Modality") or modality),
        patient=str(row.get("PatientID") or ""),
        site=str(row.get("InstitutionName") or ""),
        description=str(row.get("SeriesDescription") or ""),
        date=str(row.get("StudyDate") or ""),
        time=str(row.get("StudyTime") or ""),
        instances=int(row.get("NumberOfSeriesRelatedInstances") or 0),
    )
