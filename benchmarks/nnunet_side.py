"""What nnU-Net does in benchmarks/nnunet.py; run by an interpreter that has nnunetv2, in its own environment.

Its own plan, network, loss, augmentation, optimizer and predictor. Only the end of the training is ours: it stops when
the time is over, and the rate falls with the time instead of the epochs, so that it reaches 0 at the end.
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
        """Take steps, with the rate as a function of the time."""
        self.on_train_start()
        self.network.train()
        begun, count = time.monotonic(), 0
        while (share := (time.monotonic() - begun) / self.seconds) < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - share) ** POWER
            self.train_step(next(self.dataloader_train))
            count += 1
        print(f"nnU-Net took {count} steps in {time.monotonic() - begun:.0f} s", flush=True)


def main():
    """Plan, preprocess, train for some minutes, predict the test images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--configuration", choices=["2d", "3d_fullres"], required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    extract_fingerprints([NUMBER], num_processes=1, verbose=False, show_progress_bar=False)
    plan_experiments([NUMBER])
    preprocess([NUMBER], configurations=[given.configuration], num_processes=[1], show_progress_bar=False)
    # Planning wants to have processes; augmenting has the threads of the training, as on the other side.
    os.environ.update(nnUNet_n_proc_DA="0")
    torch.set_num_threads(given.threads)
    name = next(Path(str(nnUNet_preprocessed)).glob("Dataset*"))
    plans = load_json(str(name / "nnUNetPlans.json")) | {"continue_training": False}
    TimedTrainer.seconds = 60 * given.minutes
    trainer = TimedTrainer(
        plans, given.configuration, "all", load_json(str(name / "dataset.json")), torch.device("cpu")
    )
    trainer.run_training()
    predict(trainer, Path(str(nnUNet_raw)) / name.name)


def predict(trainer, raw):
    """Label the test images with nnU-Net's own predictor and its own mirroring."""
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
