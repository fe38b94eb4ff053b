"""Model folders as nnU-Net writes them, for two small systems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from msklabel.system import System, load_system

CONFIGS = Path(__file__).parents[2] / "configs"
FEATURES = [4, 6, 8]
SMALL = {"features": FEATURES, "convolutions": [2, 1, 3]}
DIXON = System.model_validate(
    {
        **load_system(CONFIGS / "thigh_dixon.yaml").model_dump(exclude={"profiles"}),
        "patch_voxels": (8, 24, 18),
        "spacing_mm": (1.2, 1.3, 2.0),
        "network": {"name": "plain_unet", **SMALL, "strides": [[1, 1, 1], [2, 2, 3], [1, 3, 3]]},
    }
)
RADIOGRAPH = System.model_validate(
    {
        **load_system(CONFIGS / "hip_radiograph.yaml").model_dump(exclude={"profiles"}),
        "patch_voxels": (16, 24, 1),
        "network": {"name": "plain_unet", **SMALL, "strides": [[1, 1], [2, 2], [1, 3]]},
    }
)


class Folder:
    """A trained model's folder in the making; values as they come from nnU-Net's planner, in its own axis order."""

    def __init__(self, system: System, transpose: tuple[int, int, int] = (0, 1, 2)) -> None:
        dimensions = system.dimensions
        self.transpose = transpose
        # nnU-Net's axis i is axis transpose[i] of (z, y, x), which is ours 2 - transpose[i].
        self.ours = [2 - axis for axis in transpose][3 - dimensions :]
        parameters = system.network.parameters
        strides = [[stride[axis] for axis in self.ours] for stride in parameters["strides"]]
        stages = len(strides)
        scheme = "ZScoreNormalization" if system.intensity.kind == "zscore" else "NoNormalization"
        self.arguments: dict[str, Any] = {
            "n_stages": stages,
            "features_per_stage": list(parameters["features"]),
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": [[3] * dimensions] * stages,
            "strides": strides,
            "n_conv_per_stage": list(parameters["convolutions"]),
            "n_conv_per_stage_decoder": list(parameters["convolutions"])[:-1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
        self.configuration: dict[str, Any] = {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [system.patch_voxels[axis] for axis in self.ours],
            "median_image_size_in_voxels": [30.0] * dimensions,
            "spacing": [system.spacing_mm[axis] for axis in self.ours],
            "normalization_schemes": [scheme] * len(system.channels),
            "use_mask_for_norm": [False] * len(system.channels),
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": self.arguments,
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
            "batch_dice": True,
        }
        self.name = "2d" if dimensions == 2 else "3d_fullres"
        self.plans: dict[str, Any] = {
            "dataset_name": "Dataset501_Hip",
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": list(transpose),
            "transpose_backward": np.argsort(transpose).tolist(),
            "configurations": {self.name: self.configuration},
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
        }
        self.dataset: dict[str, Any] = {
            "channel_names": {str(index): name for index, name in enumerate(system.channels)},
            "labels": {"background": 0, **system.label_indices},
            "numTraining": 10,
            "file_ending": ".nii.gz",
        }
        self.mirroring: tuple[int, ...] | None = tuple(range(dimensions))
        self.extra: dict[str, Any] = {}
        torch.manual_seed(1)
        self.network = PlainConvUNet(
            len(system.channels),
            conv_op=getattr(nn, f"Conv{dimensions}d"),
            norm_op=getattr(nn, f"InstanceNorm{dimensions}d"),
            nonlin=nn.LeakyReLU,
            num_classes=system.classes,
            deep_supervision=True,
            **{key: value for key, value in self.arguments.items() if key not in ("conv_op", "norm_op", "nonlin")},
        )
        for parameter in self.network.parameters():
            nn.init.normal_(parameter, 0.1, 0.3)

    def write(self, folder: Path, fold: str | int = 0) -> Path:
        """As nnUNetTrainer.on_train_start and save_checkpoint write it."""
        (folder / f"fold_{fold}").mkdir(parents=True)
        (folder / "plans.json").write_text(json.dumps(self.plans, indent=4))
        (folder / "dataset.json").write_text(json.dumps(self.dataset, indent=4))
        optimizer = torch.optim.SGD(self.network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
        checkpoint = {
            "network_weights": self.network.state_dict(),
            "optimizer_state": optimizer.state_dict(),
            "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
            "logging": {
                "mean_fg_dice": [np.float64(0.5), np.nanmean([0.25, 0.75])],
                "dice_per_class_or_region": [[np.float32(0.5), np.float64(1.0)]],
                "train_losses": [np.mean(np.zeros(3, np.float32))],
                "lrs": [0.01],
            },
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {
                "plans": self.plans,
                "configuration": self.name,
                "fold": fold,
                "dataset_json": self.dataset,
                "unpack_dataset": True,
                "device": torch.device("cuda"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": self.mirroring,
            **self.extra,
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
        return folder

    def scores(self, image: torch.Tensor) -> torch.Tensor:
        """Scores of the original network for an image (B, C, x, y, z), turned there and back."""
        turn, back = ([2 + int(axis) for axis in order] for order in (self.ours, np.argsort(self.ours)))
        self.network.eval()
        self.network.decoder.deep_supervision = False
        with torch.no_grad():
            return self.network(image.permute(0, 1, *turn)).permute(0, 1, *back)


def random_image(system: System, upper: float = 1.0) -> torch.Tensor:
    shape = (1, len(system.channels), *system.patch_voxels[: system.dimensions])
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * upper
