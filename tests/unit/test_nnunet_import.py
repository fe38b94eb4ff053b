"""Import of nnU-Net v2 models: folders as nnU-Net writes them, scores as nnU-Net computes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunet_samples import CONFIGS, DIXON, RADIOGRAPH, Folder, random_image
from safetensors.torch import save_file

from msklabel.errors import UserError
from msklabel.learn.nnunet_import import import_nnunet
from msklabel.networks import build_network, load_weights, weights_of
from msklabel.system import System, load_system


def imported_scores(system: System, folder: Path, image: torch.Tensor, **options: Any) -> torch.Tensor:
    network = build_network(system)
    load_weights(network, import_nnunet(folder, system, 0, **options))
    with torch.no_grad():
        return network.eval()(image)


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_an_imported_3d_model_gives_the_scores_of_the_original(tmp_path: Path, transpose: tuple[int, int, int]) -> None:
    folder = Folder(DIXON, transpose)
    raw = random_image(DIXON, 4095)  # nnU-Net saw stored values, our window maps them to 0..1
    expected = folder.scores(raw)
    found = imported_scores(DIXON, folder.write(tmp_path / "model"), raw / 4095)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("transpose", [(0, 1, 2), (0, 2, 1)])
def test_an_imported_2d_model_gives_the_scores_of_the_original(tmp_path: Path, transpose: tuple[int, int, int]) -> None:
    folder = Folder(RADIOGRAPH, transpose)
    image = random_image(RADIOGRAPH)
    found = imported_scores(RADIOGRAPH, folder.write(tmp_path / "model"), image)
    torch.testing.assert_close(found, folder.scores(image), rtol=1e-5, atol=1e-5)


def test_labels_and_channels_in_another_order_are_put_into_ours(tmp_path: Path) -> None:
    folder = Folder(DIXON)
    names = [*DIXON.labels][::-1]
    folder.dataset["labels"] = {"background": 0, **{n.replace("_", " ").title(): i for i, n in enumerate(names, 1)}}
    folder.dataset["channel_names"] = {"0": "IP", "1": "out-of-phase"}
    raw = random_image(DIXON, 4095)
    expected = folder.scores(raw[:, [1, 0]])[:, [0, *range(18, 0, -1)]]
    found = imported_scores(DIXON, folder.write(tmp_path / "model"), raw / 4095)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_the_weights_can_be_stored_as_a_version_of_ours(tmp_path: Path) -> None:
    folder = Folder(RADIOGRAPH)
    folder.network.half()
    weights = import_nnunet(folder.write(tmp_path / "model", "all"), RADIOGRAPH, "all")
    assert weights.keys() == weights_of(build_network(RADIOGRAPH)).keys()
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in weights.values())
    save_file(weights, tmp_path / "weights.safetensors")  # as versions are stored


def test_names_that_torch_adds_are_taken_off(tmp_path: Path) -> None:
    folder = Folder(RADIOGRAPH)
    state = folder.network.state_dict()
    folder.extra["network_weights"] = {f"module._orig_mod.{name}": value for name, value in state.items()}
    plain = import_nnunet(Folder(RADIOGRAPH).write(tmp_path / "plain"), RADIOGRAPH, 0)
    wrapped = import_nnunet(folder.write(tmp_path / "wrapped"), RADIOGRAPH, 0)
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)


def older(folder: Folder) -> None:
    """Plans as before nnU-Net wrote the architecture into them."""
    arguments = folder.configuration.pop("architecture")["arch_kwargs"]
    folder.configuration |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
        "pool_op_kernel_sizes": arguments["strides"],
    }


def test_older_plans_and_those_that_inherit_are_read(tmp_path: Path) -> None:
    data = RADIOGRAPH.model_dump()
    data["network"]["features"] = [4, 8, 8]
    system = System.model_validate(data)
    folder = Folder(system)
    older(folder)
    folder.plans["configurations"]["small"] = {"inherits_from": folder.name, "batch_size": 7}
    folder.name = "small"
    image = random_image(system)
    found = imported_scores(system, folder.write(tmp_path / "model"), image)
    torch.testing.assert_close(found, folder.scores(image), rtol=1e-5, atol=1e-5)


def arguments(**changes: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.arguments.update(changes)


def configuration(**changes: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.configuration.update(changes)


def architecture(name: str) -> Callable[[Folder], None]:
    return lambda folder: folder.configuration["architecture"].update(network_class_name=name)


def labels(**changes: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.dataset["labels"].update(changes)


def channels(*names: str) -> Callable[[Folder], None]:
    return lambda folder: folder.dataset.update(channel_names={str(i): name for i, name in enumerate(names)})


def unmirrored(reader: str) -> Callable[[Folder], None]:
    def change(folder: Folder) -> None:
        folder.mirroring = None
        folder.plans["image_reader_writer"] = reader

    return change


def not_finite(folder: Folder) -> None:
    folder.network.encoder.stages[1][0].convs[0].conv.bias.data[0] = torch.nan


def without_a_stage(folder: Folder) -> None:
    state = folder.network.state_dict()
    folder.extra["network_weights"] = {name: value for name, value in state.items() if "encoder.stages.2" not in name}


@pytest.mark.parametrize(
    ("change", "what", "theirs", "ours"),
    [
        (architecture("x.y.ResidualEncoderUNet"), "network", "ResidualEncoderUNet", "PlainConvUNet"),
        (arguments(n_stages=2), "stages", 2, 3),
        (arguments(features_per_stage=[4, 8, 16]), "features of each stage", [4, 8, 16], [4, 6, 8]),
        (
            arguments(strides=[[1, 1, 1], [2, 2, 2], [1, 3, 3]]),
            "strides (x, y, z)",
            [[1, 1, 1], [2, 2, 2], [3, 3, 1]],
            [[1, 1, 1], [2, 2, 3], [1, 3, 3]],
        ),
        (
            arguments(kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]]),
            "kernels (x, y, z)",
            [[3, 3, 1], [3, 3, 3], [3, 3, 3]],
            [[3, 3, 3], [3, 3, 3], [3, 3, 3]],
        ),
        (arguments(n_conv_per_stage=2), "convolutions on the way down", [2, 2, 2], [2, 1, 3]),
        (arguments(n_conv_per_stage_decoder=[1, 1]), "convolutions on the way up", [1, 1], [2, 1]),
        (arguments(conv_bias=False), "bias of convolutions", False, True),
        (
            arguments(norm_op="torch.nn.modules.batchnorm.BatchNorm3d"),
            "normalisation layer",
            "torch.nn.modules.batchnorm.BatchNorm3d",
            "torch.nn.modules.instancenorm.InstanceNorm3d",
        ),
        (arguments(nonlin="torch.nn.ReLU"), "activation", "ReLU", "LeakyReLU"),
        (
            arguments(nonlin_kwargs={"negative_slope": 0.2}),
            "parameters of the activation",
            {"inplace": True, "negative_slope": 0.2},
            {"inplace": True, "negative_slope": 0.01},
        ),
        (arguments(dropout_op="torch.nn.Dropout3d"), "dropout", "torch.nn.Dropout3d", None),
        (configuration(patch_size=[18, 24, 16]), "patch (x, y, z)", [16, 24, 18], [8, 24, 18]),
        (configuration(patch_size=[18, 24]), "dimensions", 2, 3),
        (configuration(spacing=[2.0, 1.3, 1.22]), "spacing (x, y, z) in mm", [1.22, 1.3, 2.0], [1.2, 1.3, 2.0]),
        (configuration(previous_stage="3d_lowres"), "lower resolution in a cascade", "3d_lowres", None),
        (
            configuration(normalization_schemes=["ZScoreNormalization"] * 2),
            "normalisation",
            ["ZScoreNormalization"],
            ["NoNormalization"],
        ),
        (labels(sacrum=19), "labels that only one has", ["sacrum"], []),
        (labels(gracilis=14), "label values", sorted([*range(1, 15), 14, *range(16, 19)]), list(range(1, 19))),
        (channels("noNorm", "noNorm"), "channels", ["noNorm", "noNorm"], ["in_phase", "out_of_phase"]),
        (channels("out_of_phase"), "number of channels", 1, 2),
    ],
)
def test_what_does_not_fit_is_refused_with_both_values(
    tmp_path: Path, change: Callable[[Folder], None], what: str, theirs: Any, ours: Any
) -> None:
    folder = Folder(DIXON)
    change(folder)
    with pytest.raises(UserError) as refused:
        import_nnunet(folder.write(tmp_path / "model"), DIXON, 0)
    reason = f"{what}: the model has {theirs}, the system needs {ours}"
    assert str(refused.value) == f"model/fold_0 does not fit thigh_dixon (profile paper): {reason}"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            configuration(normalization_schemes=["CTNormalization"]),
            "normalisation: the model has ['CTNormalization'], the system needs ['ZScoreNormalization']",
        ),
        (
            configuration(use_mask_for_norm=[True]),
            "z-score within a mask: the model has True, the system needs False",
        ),
        (
            labels(pelvic_bone=[1, 2]),
            "labels: pelvic_bone is a region of several values; the system needs one value for each label",
        ),
        (
            unmirrored("NaturalImage2DIO"),
            "orientation: the plans do not say that of the training images, and training did not mirror along every "
            "axis; the system needs RAS: say so if it was",
        ),
        (not_finite, "weights: encoder.stages.1.0.convs.0.conv.bias holds values that are not finite numbers"),
        (
            without_a_stage,
            "weights: 12 tensors are not in both networks, the first is encoder.stages.2.0.convs.0.conv.bias",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, change: Callable[[Folder], None], reason: str
) -> None:
    folder = Folder(RADIOGRAPH)
    change(folder)
    with pytest.raises(UserError) as refused:
        import_nnunet(folder.write(tmp_path / "model"), RADIOGRAPH, 0)
    assert str(refused.value) == f"model/fold_0 does not fit hip_radiograph (profile paper): {reason}"


def test_a_known_orientation_needs_no_mirroring(tmp_path: Path) -> None:
    folder = Folder(DIXON)
    unmirrored("SimpleITKIO")(folder)
    import_nnunet(folder.write(tmp_path / "a"), DIXON, 0, orientation="RAS")
    with pytest.raises(UserError, match="orientation: the model has LPS, the system needs RAS"):
        import_nnunet(tmp_path / "a", DIXON, 0, orientation="LPS")
    unmirrored("NibabelIOWithReorient")(folder)
    import_nnunet(folder.write(tmp_path / "b"), DIXON, 0)


def test_slices_across_another_axis_are_refused(tmp_path: Path) -> None:
    folder = Folder(RADIOGRAPH).write(tmp_path / "model")
    plans = json.loads((folder / "plans.json").read_text())
    (folder / "plans.json").write_text(json.dumps({**plans, "transpose_forward": [1, 0, 2]}))
    with pytest.raises(UserError, match=r"axis across the slices \(z, y, x are 0, 1, 2\): the model has 1, the system"):
        import_nnunet(folder, RADIOGRAPH, 0)


def test_a_system_of_another_network_is_refused(tmp_path: Path) -> None:
    system = load_system(CONFIGS / "hip_abductor_mr.yaml").with_profile("demo")
    with pytest.raises(UserError, match="network: the model has nnU-Net's U-Net, the system needs vnet"):
        import_nnunet(tmp_path, system, 0)


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_that_would_run_code_is_not_opened(tmp_path: Path) -> None:
    folder = Folder(RADIOGRAPH)
    folder.extra["logging"] = Evil(tmp_path / "mark")
    with pytest.raises(
        UserError, match=r"checkpoint_final.pth: not opened, because it holds posix.mkdir beside weights"
    ):
        import_nnunet(folder.write(tmp_path / "model"), RADIOGRAPH, 0)
    assert not (tmp_path / "mark").exists()


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no plans.json; expected the folder of a trained nnU-Net v2 model"):
        import_nnunet(tmp_path / "none", RADIOGRAPH, 0)
    folder = Folder(RADIOGRAPH).write(tmp_path / "model", 3)
    for fold in (0, "../model/fold_3", "best"):
        with pytest.raises(UserError, match=r"checkpoint_final.pth; folds: 3; take them by --folds 3"):
            import_nnunet(folder, RADIOGRAPH, fold)
    file = folder / "fold_3" / "checkpoint_final.pth"
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        file.write_bytes(data)
        with pytest.raises(UserError, match=r"checkpoint_final.pth: (cannot be read|not opened)"):
            import_nnunet(folder, RADIOGRAPH, 3)
    file.write_bytes(whole)
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match=r"not as nnU-Net v2 writes them: KeyError\('labels'\)"):
        import_nnunet(folder, RADIOGRAPH, 3)
    (folder / "plans.json").write_text("[")
    with pytest.raises(UserError, match=r"plans.json cannot be read"):
        import_nnunet(folder, RADIOGRAPH, 3)


def test_a_system_whose_grid_counts_from_the_first_voxel_is_refused(tmp_path: Path) -> None:
    system = DIXON.model_copy(update={"resampling": "from_first_voxel"})
    with pytest.raises(UserError, match="resampling: the model has edge_to_edge, the system needs from_first_voxel"):
        import_nnunet(Folder(DIXON).write(tmp_path / "model"), system, 0)
