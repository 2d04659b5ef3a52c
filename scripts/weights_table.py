"""The models that are shipped: their data, licences and options, and what scores them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import imwrite

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import accuracy

__all__ = ["MODELS", "Files", "Pairs", "Recipe"]

Files = list[tuple[Path, Path]]
"""Files of images and their labels."""
Pairs = dict[str, Files]
"""Those of the parts "train" and "val"."""
Reader = Callable[[Path, Mapping[str, Any], Path], Pairs]

PIXEL_OF_RAT3 = 0.18
"""Micrometers; the only images of the set without a file that says it."""


@dataclass(frozen=True)
class Recipe:
    """How a model is made, and what its card says beyond the training."""

    reader: Reader
    """Gives the images and labels, those that must be converted in the folder that it is given."""
    options: tuple[str, ...]
    """Of the command train."""
    steps: int
    task: str
    data: str
    licence: str
    """Of the weights."""
    attribution: str
    grid: str
    """What a pixel or voxel is."""
    segment: tuple[str, ...] = ()
    """Options of the command segment that its labels are scored with, and that a user should give."""
    truth: str = "classes"
    """What the labels of the validation part hold: classes, objects, or objects whose boundaries are the class."""
    decides: str = "val_dice"
    """The score by which a new model replaces an old one."""
    notes: tuple[str, ...] = ()
    """Sentences that a user must know."""

    def truth_of(self, val: Files, folder: Path) -> Files:
        """Give the files that results are compared with; boundaries are written into the folder.

        Returns
        -------
        list of tuple of Path
        """
        files: Files = accuracy.boundary_truth(val, folder) if self.truth == "boundaries" else val
        return files


def fluorescence(data: Path, splits: Mapping[str, Any], folder: Path) -> Pairs:
    """Nuclei in fluorescence images alone, with one channel."""
    names = splits["dsb2018_nuclei"]
    grey = {part: [n for n in names[part] if names["kind"][n] != "he"] for part in ("train", "val")}
    pairs: Pairs = accuracy.nuclei(data, {"dsb2018_nuclei": grey}, folder)
    for image, _ in (pair for part in pairs.values() for pair in part):
        np.save(image, np.load(image)[:1])  # the reader repeats a grey image as three equal channels
    return pairs


def axons_in_micrometers(data: Path, splits: Mapping[str, Any], folder: Path) -> Pairs:
    """Axon and myelin, with the pixel size of each image."""
    pairs: Pairs = {}
    for part, files in accuracy.axons(data, splits, folder).items():
        pairs[part] = []
        for image, labels in files:
            size = _pixel_size(data, image.stem)
            for path in (image, labels):
                planes = np.load(path)
                about = {"resolution": (1 / size, 1 / size), "metadata": {"unit": "micron", "axes": "ZYX"}}
                imwrite(path.with_suffix(".tif"), planes, imagej=True, **about)
            pairs[part].append((image.with_suffix(".tif"), labels.with_suffix(".tif")))
    return pairs


def _pixel_size(data: Path, name: str) -> float:
    """Read the edge of a pixel, in micrometers."""
    told = list((data / "axondeepseg_sem").glob(f"**/{name}*_SEM.json"))
    return float(json.loads(told[0].read_text())["PixelSize"][0]) if told else PIXEL_OF_RAT3


BOWL = "Data Science Bowl 2018, stage 1 (BBBC038v1)"
BOWL_AUTHORS = (
    "Image set BBBC038v1 from the Broad Bioimage Benchmark Collection: Caicedo et al., Nature Methods 2019, "
    "https://doi.org/10.1038/s41592-019-0612-7"
)
MODELS: dict[str, Recipe] = {
    "nuclei_fluorescence": Recipe(
        fluorescence,
        ("--view", "2d", "--label-values", "objects", "--objects-as", "separated", "--option", "width=16"),
        350,
        "nuclei in fluorescence microscopy, 2D, one channel",
        f"{BOWL}: 63 fluorescence images; 12 others for validation",
        "CC0 1.0",
        BOWL_AUTHORS,
        "pixels of unknown size; nuclei are about 10 to 60 pixels wide",
        truth="objects",
        decides="val_object_f1",
        notes=("The sample image of the plugin is not among the training images.",),
    ),
    "nuclei": Recipe(
        accuracy.nuclei,
        ("--view", "2d", "--label-values", "objects", "--objects-as", "separated", "--option", "width=16"),
        1500,
        "nuclei in fluorescence microscopy and in purple H&E stain, 2D, three channels (red, green, blue)",
        f"{BOWL}: 63 fluorescence images, 12 of stained tissue; 15 others for validation",
        "CC0 1.0",
        BOWL_AUTHORS,
        "pixels of unknown size; nuclei are about 10 to 60 pixels wide",
        truth="objects",
        decides="val_object_f1",
        notes=("A grey image must be given as three equal channels.",),
    ),
    "hippocampus": Recipe(
        accuracy.hippocampus,
        ("--view", "3d", "--network", "unet3d_ds", "--option", "depth=4", "--class-names", "1=anterior", "2=posterior"),
        1400,
        "anterior (head) and posterior (body and tail) hippocampus in crops of T1-weighted MRI, 3D",
        "Medical Segmentation Decathlon, task 04: 64 volumes; 16 others for validation",
        "CC BY-SA 4.0",
        "Medical Segmentation Decathlon, task 04 (Vanderbilt University Medical Center): Antonelli et al., Nature "
        "Communications 2022, https://doi.org/10.1038/s41467-022-30695-9",
        "1 x 1 x 1 mm",
        notes=(
            "It has seen crops of about 35 x 50 x 36 mm around the hippocampus, not whole heads.",
            "The data are shared alike, and so are these weights: what is made from them must carry the same licence.",
        ),
    ),
    "axon_myelin": Recipe(
        axons_in_micrometers,
        ("--view", "2d", "--class-names", "1=axon", "2=myelin", "--target-spacing", "1", "0.13", "0.13"),
        3000,
        "axons and myelin of the spinal cord in scanning electron microscopy, 2D, one channel",
        "data_axondeepseg_sem, rat spinal cord: 6 images; 1 other for validation",
        "MIT",
        "AxonDeepSeg data, copyright (c) 2020 ivadomed: Zaimi et al., Scientific Reports 2018, "
        "https://doi.org/10.1038/s41598-018-22181-4",
        "0.13 x 0.13 micrometer; other pixel sizes (0.07 to 0.18 were seen) are resampled",
        notes=(
            "The set gives no pixel size for three images of one rat, the validation image among them; 0.18 micrometer "
            "was taken.",
            "The validation part is one image, of a rat that two training images show as well.",
        ),
    ),
    "retinal_vessels": Recipe(
        accuracy.vessels,
        ("--view", "2d", "--class-names", "1=vessel"),
        8000,
        "vessels in photographs of the retina, 2D, three channels (red, green, blue)",
        "CHASE_DB1: 18 photographs; 2 others, of another child, for validation",
        "CC BY 4.0",
        "CHASE_DB1, Kingston University London: Fraz et al., IEEE Transactions on Biomedical Engineering 2012, "
        "https://doi.org/10.1109/TBME.2012.2205687",
        "pixels of photographs of 999 x 960",
        notes=("Two human observers of the set agree with a Dice of 0.78.",),
    ),
    "neuron_boundaries": Recipe(
        accuracy.membranes,
        (
            "--view", "2.5d", "--label-values", "objects", "--objects-as", "boundaries", "--boundary-width", "2",
            "--context", "3",
        ),
        3000,
        "boundaries between neurons in electron microscopy, planes with their neighbours (2.5D), one channel",
        "FIB-SEM of the Drosophila medulla: 96 planes of 250 x 250; the next 16 planes for validation",
        "CC BY 3.0",
        "FlyEM project team, Janelia Research Campus: Takemura et al., PNAS 2015, "
        "https://doi.org/10.1073/pnas.1509820112",
        "10 x 10 x 10 nm",
        truth="boundaries",
        notes=("A boundary is what lies within two voxels of another neuron, so that lines are four voxels wide.",),
    ),
    "embryo_nuclei": Recipe(
        accuracy.embryo,
        ("--view", "3d", "--network", "vnet3d", "--spacing", "2.18", "1", "1", "--class-names", "1=nucleus"),
        300,
        "nuclei of mouse embryos in confocal microscopy, 3D, one channel",
        "QCANet, one embryo of 8 cells: the part with 6 nuclei; the part with the 2 others for validation",
        "MIT",
        "QCANet, copyright (c) 2018 Funahashi Lab., Keio University: Tokuoka et al., npj Systems Biology and "
        "Applications 2020, https://doi.org/10.1038/s41540-020-00152-8",
        "voxels that are 2.18 times as long along z as along y and x",
        segment=("--spacing", "2.18", "1", "1"),
        notes=("It comes from one embryo, so expect it to need training on your own.",),
    ),
}  # fmt: skip
