"""Inspect a model in a run folder: compute its outputs besides the labels, and write a file for each of their parts."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.events import Event, Notice, SlabDone
from napari_unetvnet.files import writing
from napari_unetvnet.images.arrays import FileArray
from napari_unetvnet.images.formats import ending_of, format_of
from napari_unetvnet.images.io import write_probabilities, write_uncertainty
from napari_unetvnet.images.outputs import refuse_replacing
from napari_unetvnet.images.sources import paths_of, split_dataset, split_time
from napari_unetvnet.images.written import claimed, delivering, refuse_foreign
from napari_unetvnet.json_files import write_json
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.channels import given_names, image_for
from napari_unetvnet.runs.folder import FALLBACK, INDEX, MAPS
from napari_unetvnet.runs.inputs import read_image
from napari_unetvnet.runs.maps import MapFile
from napari_unetvnet.runs.models import find_model
from napari_unetvnet.temporary import remove

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference import MapSlab
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.outputs import OutputModel
    from napari_unetvnet.settings import InspectJob

__all__ = ["inspect", "maps_in"]

OTHER_ENDING = ".tif"
MEANINGS = {
    "heatmaps": "Mean magnitude of the activations of {name}; 0 and 1 stand for {low:.4g} and {high:.4g}.",
    "attention": "Attention map of {name} (level0 is the finest), from 0 to 1.",
    "reconstruction": "The image as the autoencoder branch gives it back, in the intensities of the image.",
    "levels": "Probability of each class by {name}; main is what labels are made of.",
}
HALF = ("attention", "levels")
"""Outputs that are stored in half precision."""


def inspect(folder: Path, job: InspectJob) -> Generator[Event]:
    """Compute the chosen outputs of a model for an image.

    The maps are written to the run folder slab by slab, and to the folder of the job at the end.

    Yields
    ------
    Event

    Raises
    ------
    FileProblem
        If the image, the model or the folder cannot be used.
    ModelProblem
        If the model has not what is asked for.
    """
    with claimed([job.output] if job.output else []) as unrecorded:
        if unrecorded:
            yield Notice(unrecorded)
        yield from _inspect(folder, job)


def _inspect(folder: Path, job: InspectJob) -> Generator[Event]:
    """Write maps to a folder that no other run writes."""
    from napari_unetvnet.inference import scale_notices
    from napari_unetvnet.model.device import autotuned_convolutions, keep_freed_memory
    from napari_unetvnet.model.model import load_model
    from napari_unetvnet.model.normalisation import measured_normalisation
    from napari_unetvnet.model.outputs import OutputModel, choose_outputs

    yield from _check_folder(job)
    path = find_model(job.model)
    refuse_replacing([job.output] if job.output else [], (job.image, path))
    card, volume = read_card(path), read_image(job.image, job, grids := list[str]())
    names = given_names(job.image, job.channel_names, volume.channels, volume.channel_names)
    volume, missing, texts = image_for(card, volume, names)
    yield from map(Notice, (*grids, *texts))
    kinds = choose_outputs(card, job.what)
    ending = yield from _ending(job)
    scale = measured_normalisation(volume, card)
    for text in scale_notices(card, scale, volume.name, masked=False, missing=missing):
        yield Notice(text)
    model, maps = load_model(path, job), list[MapFile]()
    remove(folder / MAPS)
    (folder / MAPS).mkdir()
    with keep_freed_memory(), autotuned_convolutions(model.device):
        for number, what in enumerate(kinds):
            model = OutputModel(model, what)
            yield from _compute(folder, model, volume, job, maps, scale, (number, len(kinds)))
    yield from _deliver(folder / MAPS, maps, job, volume, ending)


def maps_in(folder: Path, job: InspectJob) -> Path | None:
    """Return the folder of the finished maps of a run, None if they are not finished."""
    place = job.output or folder / MAPS
    return place if (place / INDEX).exists() else None


def _compute(
    folder: Path,
    model: OutputModel,
    volume: Volume,
    job: InspectJob,
    maps: list[MapFile],
    scale: Intensity,
    place: tuple[int, int],
) -> Generator[Event]:
    """Compute an output slab by slab; ``place`` are its number and the number of outputs, for the progress."""
    from napari_unetvnet import inference

    settings, depth = job.tiling, volume.shape[0]
    if model.what == "reconstruction" and job.tile is None:
        settings = settings.model_copy(update={"tile": model.fit((1, 1, 1))})
    fallback = inference.FallbackSteps(model, volume, settings, folder / FALLBACK, inference.map_steps)
    store = _Store(folder / MAPS, model, volume)
    for item in fallback.steps(scale=scale):
        if isinstance(item, Notice):
            yield item
            continue
        store.write(item)
        number, count = place
        yield SlabDone(number * depth + item.start, number * depth + item.stop, count * depth)
    yield from store.finish()
    maps += store.maps.values()


class _Store:
    """The files of an output in the run folder.

    Parameters
    ----------
    place : Path
        Their folder.
    """

    def __init__(self, place: Path, model: OutputModel, volume: Volume) -> None:
        self._place, self._volume, self._what, self._card = place, volume, model.what, model.card
        self.maps: dict[str, MapFile] = {}
        self._arrays: dict[str, FileArray] = {}

    def write(self, slab: MapSlab) -> None:
        """Write finished planes."""
        for name, values in slab.maps.items():
            if name not in self.maps:
                self._create(name, len(values))
            shown, part = self.maps[name], values if len(values) > 1 else values[0]
            self._arrays[name][..., slab.start : slab.stop, :, :] = part
            if np.isfinite(part).any():  # not in a frame
                shown.low, shown.high = min(shown.low, float(np.nanmin(part))), max(shown.high, float(np.nanmax(part)))

    def _create(self, name: str, channels: int) -> None:
        file = f"{self._what}.npy" if self._what == name or name == "image" else f"{self._what}-{name}.npy"
        shape = self._volume.shape if channels == 1 else (channels, *self._volume.shape)
        dtype = np.float16 if self._what in HALF else np.float32
        self._arrays[name] = FileArray.create(self._place / file, shape, dtype)
        self.maps[name] = MapFile(file, self._what, name, _channel_names(self._what, self._card, channels))

    def finish(self) -> Iterator[Event]:
        """Scale heat maps to [0, 1] over the whole image, and describe all maps."""
        for name, shown in self.maps.items():
            shown.meaning = MEANINGS[self._what].format(name=name, low=shown.low, high=shown.high)
            if self._what == "heatmaps":
                spread = shown.high - shown.low
                for plane in range(self._volume.shape[0]):
                    values = np.nan_to_num(self._arrays[name][plane] - np.float32(shown.low))
                    self._arrays[name][plane] = values / np.float32(spread) if spread > 0 else 0
                    yield Event()


def _channel_names(what: str, card: ModelCard, channels: int) -> tuple[str, ...]:
    if channels == 1:
        return ()
    if what == "levels":
        return card.class_names or tuple(f"class {value}" for value in card.values)
    return tuple(f"channel {number}" for number in range(channels))


def _check_folder(job: InspectJob) -> Iterator[Notice]:
    """Refuse a folder that holds anything but earlier maps, before any work is done."""
    output = job.output
    if output is None:
        return
    if output.exists() and not output.is_dir():
        raise FileProblem(f"{output} is a file; name a folder for the maps.")
    earlier = (output / INDEX).is_file()
    if output.is_dir() and any(output.iterdir()) and not earlier:
        raise FileProblem(f"{output} is not empty and holds no earlier maps; name a new folder.")
    existing = output if output.is_dir() else output.parent
    if not existing.is_dir():
        raise FileProblem(f"There is no folder {existing} to make {output.name} in; create it, or choose another.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise FileProblem(f"Folder {existing} is write-protected; choose another.")
    if earlier:
        maps = [path for path in output.iterdir() if path.name == INDEX or format_of(path)]
        refuse_foreign(maps, overwrite=job.overwrite)
        yield Notice(f"The maps in {output} are replaced.")


def _ending(job: InspectJob) -> Generator[Notice, None, str]:
    """Choose the ending of the files: that of the image, if its format can hold maps."""
    if job.ending is not None:
        return job.ending
    first = split_dataset(split_time(paths_of(job.image)[0])[0])[0]
    kind = format_of(first)
    if kind is not None and kind.writes("probabilities"):
        return ending_of(first)
    if job.output is not None:
        yield Notice(f"{kind.name if kind else first.name} cannot hold maps; they are written as {OTHER_ENDING}.")
    return OTHER_ENDING


def _deliver(place: Path, maps: list[MapFile], job: InspectJob, volume: Volume, ending: str) -> Iterator[Event]:
    """Write the maps to the folder of the job in the format of the image, and the index last."""
    output = job.output or place
    if job.output is not None:
        output.mkdir(exist_ok=True)
        for shown in maps:
            source, shown.file = FileArray(place / shown.file), shown.file.removesuffix(".npy") + ending
            write = write_probabilities if source.ndim == 4 else write_uncertainty
            write(output / shown.file, source, volume)
            yield Event()
    index: dict[str, Any] = {"image": job.image, "model": job.model, "maps": [asdict(shown) for shown in maps]}
    with writing(output / INDEX, "the maps are complete without it"), delivering(output / INDEX) as (part,):
        write_json(part, index)
    if job.output is not None:
        remove(place)
