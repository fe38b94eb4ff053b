"""Systems of one's own beside the project's; options; the command line's own conventions."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from test_imaging import write_slice
from test_preprocess import make_system

from msklabel.app import MskLabelApp
from msklabel.catalogue import app_folder, load_catalogue
from msklabel.cli import joined_conf
from msklabel.cli.infer import infer
from msklabel.errors import Conflict, NotFound, UserError
from msklabel.imaging import LabelMap
from msklabel.imaging.write import write_labels
from msklabel.options import Options
from msklabel.predict.source import read_for
from msklabel.system import ConfigError
from msklabel.work import Work


@pytest.fixture
def own_configs(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    document = make_system(name="sixth", title="A sixth system").model_dump(mode="json", exclude_unset=True)
    (folder / "sixth.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder


def test_a_sixth_yaml_is_served_without_touching_code(own_configs: Path, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    app = MskLabelApp(str(app_folder()), str(studies), {"configs": str(own_configs), "models": "sixth,hip_tissue_ct"})
    info = app.info()
    assert set(info["models"]) == {"sixth", "hip_tissue_ct", "hip_tissue_ct_threshold", "interpolate"}
    assert info["models"]["sixth"]["labels"] == {"dense": 1, "soft": 2}
    assert set(info["trainers"]) == {"sixth", "hip_tissue_ct"}


def test_all_systems_are_loaded_by_default_in_the_profile_they_have(own_configs: Path) -> None:
    systems = load_catalogue(own_configs, profile="demo")
    assert len(systems) == 6
    assert (systems["hip_tissue_ct"].profile, systems["sixth"].profile) == ("demo", "paper")


@pytest.mark.parametrize(
    ("names", "profile", "sentence"),
    [
        (["heart"], "paper", "no system 'heart'; systems: hip_abductor_mr, "),
        ([], "huge", "no profile 'huge'; profiles: demo, paper"),
    ],
)
def test_unknown_names_list_what_there_is(names: list[str], profile: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_catalogue(names=names, profile=profile)


def test_an_empty_configs_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \*\.yaml files"):
        load_catalogue(tmp_path)
    with pytest.raises(ConfigError, match="nope: no such folder"):
        load_catalogue(tmp_path / "nope")


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        ({"backend": "openvno"}, "backend 'openvno' is not known; one of auto, eager, half, channels_last, compiled, "),
        ({"backend": "cuda_graph", "device": "cpu"}, "backend 'cuda_graph' cannot be used on cpu; here: auto, eager"),
        ({"train_after": "10,60;hip=5,30"}, "--conf train_after: no system 'hip'; systems: hip_tissue_ct$"),
    ],
)
def test_options_that_name_what_is_not_there_are_refused_at_the_start(
    tmp_path: Path, conf: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Work("", str(tmp_path), {"models": "hip_tissue_ct", **conf})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "banana"}, "--device: 'banana'; one of cpu, cuda or cuda:N"),
        ({"backend": "openvno"}, "--backend: 'openvno'; one of auto, eager, "),
    ],
)
def test_a_command_refuses_an_unknown_device_or_backend_also_where_it_has_no_effect(
    tmp_path: Path, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        infer(tmp_path, "hip_tissue_ct_threshold", tmp_path / "label.nii.gz", **options)


@pytest.mark.parametrize(
    ("studies", "conf", "sentence"),
    [
        (".", {"device": "banana"}, "--conf device: 'banana'; one of cpu, cuda or cuda:N"),
        (".", {"modles": "x"}, "--conf modles: unknown key; keys: models = "),
        ("/no/such/folder", {}, "no such folder"),
        ("http://pacs/dicom-web", {"dicomweb_password_file": "/no/such"}, "/no/such: cannot be read"),
        ("http://pacs/dicom-web", {"pacs_cache_gib": "many"}, "'many'; expected a number above 0"),
        (".", {"job_days": "0"}, "--conf job_days: '0'; a number of days above 0"),
    ],
)
def test_options_name_what_is_wrong(studies: str, conf: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Options.from_conf(studies, conf)


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:12", 8)])
def test_a_gpu_that_is_not_there_is_refused(device: str, gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ConfigError, match=rf"--conf device: '{device}'; PyTorch \(.*\) finds {gpus} GPUs here"):
        Options.from_conf(".", {"device": device})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 13)
    assert Options.from_conf(".", {"device": device}).device == device


def test_conf_takes_two_words_as_monai_labels_users_write_it() -> None:
    assert joined_conf(["serve", "--conf", "a", "b", "--conf", "c=d", "--port", "1"]) == [
        "serve",
        "--conf",
        "a=b",
        "--conf",
        "c=d",
        "--port",
        "1",
    ]
    with pytest.raises(ConfigError, match="--conf a: a value is missing"):
        joined_conf(["serve", "--conf", "a"])


def test_an_unknown_strategy_model_or_image_lists_what_there_is(tmp_path: Path) -> None:
    app = MskLabelApp(str(app_folder()), str(tmp_path), {"models": "hip_tissue_ct"})
    with pytest.raises(NotFound, match="no strategy 'best'; strategies: auto, random, first"):
        app.next_sample({"strategy": "best"})
    with pytest.raises(NotFound, match="no model 'heart'; models: hip_tissue_ct"):
        app.infer({"model": "heart", "image": "a"})
    with pytest.raises(UserError, match="which image"):
        app.infer({"model": "hip_tissue_ct"})
    assert app.next_sample({"strategy": "first"}) == {}


def test_a_scan_that_cannot_be_read_is_never_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    write_labels(tmp_path / "b.nii.gz", LabelMap(np.ones((4, 4, 4), np.uint8), np.eye(4)))
    app = MskLabelApp(str(app_folder()), str(tmp_path), {"models": "hip_tissue_ct"})
    assert app.next_sample({"strategy": "first"})["id"] == "b"
    (tmp_path / "b.nii.gz").unlink()
    app.datastore().refresh()
    assert app.next_sample({"strategy": "random"}) == {}


def test_a_scan_of_another_modality_is_refused_by_name(tmp_path: Path) -> None:
    write_slice(tmp_path, 0, "1.2.3.4", 0.0)
    with pytest.raises(UserError, match="hip_abductor_mr is for MR, this is CT"):
        read_for(load_catalogue()["hip_abductor_mr"], tmp_path)


def test_a_system_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    app = MskLabelApp(str(app_folder()), str(tmp_path), {"models": "hip_tissue_ct"})
    folder = app.versions.root / "hip_tissue_ct"
    folder.mkdir(parents=True)
    with FileLock(folder / ".training.lock"), pytest.raises(Conflict, match="being trained by another process"):
        app.train({"model": "hip_tissue_ct"})
    with pytest.raises(UserError, match="no labelled scans"):
        app.train({"model": "hip_tissue_ct"})
