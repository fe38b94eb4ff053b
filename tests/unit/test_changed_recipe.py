"""A checkpoint belongs to the recipe and the configuration that it was trained by."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from test_learn import RECIPE
from test_pause import labelled
from test_preprocess import make_system

from msklabel.learn.split import RolesInFile
from msklabel.learn.task import SystemTrainTask
from msklabel.learn.versions import Versions

QUICK = {**RECIPE, "epochs": 1}


@pytest.mark.parametrize("changes", [{}, {"train": {**QUICK, "learning_rate": 1e-4}}, {"patch_voxels": [24, 24, 1]}])
def test_only_a_training_by_the_same_recipe_and_configuration_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    pairs = [labelled(tmp_path, number) for number in range(2)]
    versions, roles = Versions(tmp_path / "models"), RolesInFile(tmp_path / "models")

    def task_of(**more: Any) -> SystemTrainTask:
        return SystemTrainTask(make_system(**{"train": QUICK, **more}), versions, lambda _: pairs, roles, "cpu")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    task = task_of()
    monkeypatch.setattr(task.update, "store", killed)
    with pytest.raises(KeyboardInterrupt):
        task({})
    before = load_file(tmp_path / "models" / "toy" / "training" / "fold0" / "done.safetensors")
    changed = task_of(**changes)
    assert changed({"resume": True})["version"] == "0001"
    after = versions.weights(changed.system, "0001")[0]
    assert all(after[name].equal(tensor) for name, tensor in before.items()) == (not changes)
