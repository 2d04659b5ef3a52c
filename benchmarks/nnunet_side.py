"""The nnU-Net part of benchmarks/nnunet.py, run by an interpreter with nnunetv2 in a separate environment.

Plan, network, loss, augmentation, optimizer and predictor are those of nnU-Net. Only the end of the training differs:
it stops when the time is over, and the learning rate decreases with time instead of epochs, to 0 at the end.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

os.environ.setdefault("nnUNet_compile", "f")

from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

NUMBER, POWER = 1, 0.9


class TimedTrainer(nnUNetTrainer):
    """Trains until the time is over."""

    seconds = 60.0

    def run_training(self):
        """Take steps, with the learning rate as a function of time."""
        self.on_train_start()
        self.network.train()
        start, count = time.monotonic(), 0
        while (fraction := (time.monotonic() - start) / self.seconds) < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - fraction) ** POWER
            self.train_step(next(self.dataloader_train))
            count += 1
        print(f"nnU-Net took {count} steps in {time.monotonic() - start:.0f} s", flush=True)


def main():
    """Plan, preprocess, train for some minutes, predict the test images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--configuration", choices=["2d", "3d_fullres"], required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parsed = parser.parse_args()
    extract_fingerprints([NUMBER], num_processes=1, verbose=False, show_progress_bar=False)
    plan_experiments([NUMBER])
    preprocess([NUMBER], configurations=[parsed.configuration], num_processes=[1], show_progress_bar=False)
    # Planning needs processes; augmentation runs in the training process, as in this package.
    os.environ.update(nnUNet_n_proc_DA="0")
    torch.set_num_threads(parsed.threads)
    name = next(Path(str(nnUNet_preprocessed)).glob("Dataset*"))
    plans = load_json(str(name / "nnUNetPlans.json")) | {"continue_training": False}
    TimedTrainer.seconds = 60 * parsed.minutes
    trainer = TimedTrainer(
        plans, parsed.configuration, "all", load_json(str(name / "dataset.json")), torch.device("cpu")
    )
    trainer.run_training()
    predict(trainer, Path(str(nnUNet_raw)) / name.name)


def predict(trainer, raw):
    """Label the test images with nnU-Net's predictor and mirroring."""
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, [trainer.network.state_dict()],
        trainer.dataset_json, trainer.__class__.__name__, trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    (raw / "predicted").mkdir()
    predictor.predict_from_files_sequential(str(raw / "imagesTs"), str(raw / "predicted"))


if __name__ == "__main__":
    main()
