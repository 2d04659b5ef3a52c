"""What to do when a batch of tiles does not fit into memory: the least that helps, told, and never silently.

The rungs: fewer tiles at once; in 2D and 2.5D fewer planes in a tile; smaller tiles; the CPU, with tiles as large as
were asked for. Planes that are finished are kept. What worked is remembered for the device, and the next segmentation
of the same kind begins there; but not the CPU, since a full GPU may be free again. A run folder has a rung of its own,
with which the run is resumed, so that the planes that are left come out as they would have.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from napari_unetvnet.errors import OutOfMemory
from napari_unetvnet.events import Notice
from napari_unetvnet.files import read_json, write_json
from napari_unetvnet.inference.compiled import compile_for_tiles, run_as_written
from napari_unetvnet.inference.segment import Slab, seen_by, steps
from napari_unetvnet.inference.tiles import plan_tiles
from napari_unetvnet.model.device import FALLBACK, device_name, lacks_memory, recall, remember

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference.tiles import Tiles
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["Ladder", "Rung"]

LEAST_EDGE = 32
"""A GPU is given up before the longest edge of a tile is shorter, from which labels would suffer much."""


@dataclass(frozen=True)
class Rung:
    """How a batch of tiles is made to fit; None is what the settings say.

    Parameters
    ----------
    batch : int, optional
        Tiles at once.
    tile : tuple of 3 int, optional
        Their size.
    cpu : bool
        Whether the GPU was given up.
    compiled : bool
        Whether the network was compiled, which changes the rounding; only for tiles as large as were asked for.
    """

    batch: int | None = None
    tile: Triple | None = None
    cpu: bool = False
    compiled: bool = False

    def of(self, settings: SegmentSettings) -> SegmentSettings:
        """Give settings with what was made smaller.

        Parameters
        ----------
        settings : SegmentSettings

        Returns
        -------
        SegmentSettings
            Of the same kind.
        """
        changes = {"batch": self.batch, "tile": self.tile}
        return settings.model_copy(update={name: value for name, value in changes.items() if value is not None})


class Ladder:
    """A segmentation that goes on with less where memory does not suffice.

    Parameters
    ----------
    model : Model
        In the number format in which it is to compute.
    volume : Volume, data of shape (C, Z, Y, X)
    settings : SegmentSettings
    file : Path, optional
        Of the run, to keep the rung in.
    """

    def __init__(self, model: Model, volume: Volume, settings: SegmentSettings, file: Path | None = None) -> None:
        self.rung = Rung()
        self._model, self._volume, self._asked = model, volume, settings
        self._seen = seen_by(model.card, volume, settings)
        self._kind = self._named()
        self._file = file
        self._settled = False  # whether to compile

    def steps(self, *, first_plane: int = 0, **further: Any) -> Iterator[Slab | Notice]:
        """Label the volume slab by slab.

        Parameters
        ----------
        first_plane : int
            Planes before it are left out: a run is resumed.
        **further
            As of `inference.steps`.

        Yields
        ------
        Slab or Notice
            Finished planes in order, and before those that are made with less, what was changed.

        Raises
        ------
        OutOfMemory
            If one tile of the least size does not fit on the CPU.
        UserError
            As of `inference.steps`.
        RuntimeError
            If anything else goes wrong in the network.
        """
        if told := self._begin(first_plane):
            yield Notice(told)
        climbed = False
        while True:
            try:
                yield from self._compile()
                for slab in steps(self._model, self._volume, self._settings, first_plane=first_plane, **further):
                    if climbed and not self.rung.cpu and self.rung != Rung():
                        remember(FALLBACK, self._kind, asdict(self.rung))
                    climbed, first_plane = False, slab.start + slab.labels.shape[-3]
                    yield slab
                return
            except (OutOfMemory, MemoryError):
                pass
            except RuntimeError as error:
                if not lacks_memory(error):
                    raise
            yield Notice(self._climbed(first_plane))
            climbed = True

    @property
    def _settings(self) -> SegmentSettings:
        return self.rung.of(self._asked)

    @property
    def _tiles(self) -> Tiles:
        return plan_tiles(self._model, self._seen.shape, self._settings)

    def _begin(self, first_plane: int) -> str:
        """Go back to the rung of an interrupted run, or to what the last one of the kind had to do, and say so."""
        self._settled = first_plane > 0
        if first_plane:
            known, why = self._kept(), "As before it was interrupted, the run goes on"
        else:
            known = recall(FALLBACK, self._kind)
            why = "Such tiles did not fit into this device's memory before; it begins"
            self._forget()
        if not isinstance(known, dict) or not set(asdict(self.rung)) <= set(known):
            return ""
        tile = known["tile"] and (known["tile"][0], known["tile"][1], known["tile"][2])
        self.rung = Rung(known["batch"], tile, known["cpu"], known["compiled"])
        device = torch.device("cpu") if self.rung.cpu else self._model.device
        self._model.move_to(device, known.get("precision", self._model.precision))
        self._keep()
        if self.rung == Rung(compiled=True):
            return ""
        size = _by(self._tiles.size)
        ways = f"{self._settings.batch} at once, of {size} voxels" + " on the CPU" * self.rung.cpu
        remedy = "" if first_plane else "; give another tile to try anew"
        return f"{why} with tiles {ways}{remedy}."

    def _compile(self) -> Generator[Notice]:
        """Compile the network if it pays; in a run that is resumed, if it was."""
        known = self.rung.compiled if self._settled else None
        compiled = yield from compile_for_tiles(self._model, self._seen, self._tiles, self._settings, known)
        if compiled != self.rung.compiled:
            self.rung = replace(self.rung, compiled=compiled)
            self._keep()

    def _climbed(self, plane: int) -> str:
        """Take the next rung and say what was changed."""
        self._settled = True
        told = self._climb()
        if told is None:
            raise OutOfMemory(
                f"Not even one tile of {_by(self._tiles.size)} voxels fits into the memory of {self._model.device}; "
                "close other programs, or choose a smaller model."
            )
        self._keep()
        torch.cuda.empty_cache()
        return f"The tiles did not fit into the memory of the device; from plane {plane} on {told}."

    def _climb(self) -> str | None:
        """Take the next rung; None if there is nothing left."""
        if self.rung.compiled:
            run_as_written(self._model)
            self.rung = replace(self.rung, compiled=False)
            return "the network runs as it is written, and not as it was compiled"
        tiles, planar = self._tiles, self._model.card.dims == 2
        size = tiles.size
        # Of several views only one is planned here, and the others may have more tiles.
        places = self._settings.batch if self._asked.view == "multi-view" else len(tiles.places)
        batch = min(self._settings.batch, places)
        if batch > 1:
            # The size is kept, which may have been chosen for that batch.
            self.rung = replace(self.rung, batch=batch // 2, tile=size)
            return f"{batch // 2} are computed at once instead of {batch}"
        if planar and size[0] > 1:
            self.rung = replace(self.rung, batch=1, tile=(size[0] // 2, size[1], size[2]))
            return f"they hold {size[0] // 2} planes instead of {size[0]}"
        if (smaller := self._smaller(size)) is not None:
            self.rung = replace(self.rung, batch=1, tile=smaller)
            return (
                f"they are {_by(smaller)} voxels instead of {_by(size)}, so that labels from there on are not quite "
                "those that large tiles give"
            )
        if self._model.device.type == "cpu":
            return None
        self.rung = Rung(batch=1, cpu=True)
        self._model.move_to(torch.device("cpu"), "fp32")
        return f"the segmentation goes on on the CPU, which is slower, with tiles of {_by(self._tiles.size)} voxels"

    def _smaller(self, size: Triple) -> Triple | None:
        """Give the next smaller tile, if it is worth it and may be turned as the settings want."""
        smaller = self._model.smaller(size)
        least = 1 if self._model.device.type == "cpu" else LEAST_EDGE
        if smaller is None or max(smaller) < least or (self._asked.tta == "rotations" and len(set(smaller)) > 1):
            return None
        return smaller

    def _named(self) -> str:
        """Say what the memory of a batch of tiles depends on."""
        model, asked = self._model, self._asked
        card, size = model.card, plan_tiles(model, self._seen.shape, asked).size
        network = (model.precision, card.network, card.option, card.view, card.channels, card.outputs)
        parts = ("segment", device_name(model.device), *network, asked.view, asked.tile, asked.batch, size)
        return " | ".join(map(str, (*parts, self._seen.shape[1:])))  # sums are as wide as the planes

    def _kept(self) -> Any:
        """Read the rung of an interrupted run; None if it took none."""
        if self._file is None or not self._file.exists():
            return None
        return read_json(self._file, dict, "remove it to go on with tiles as the settings say, or start a new run")

    def _keep(self) -> None:
        """Write the rung into the run folder."""
        if self._file is not None:
            write_json(self._file, asdict(self.rung) | {"precision": self._model.precision})

    def _forget(self) -> None:
        """Drop what an earlier run of the folder, which begins anew, had to do."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def _by(size: Sequence[int]) -> str:
    """Write a size as ``64 x 64 x 64``."""
    return " x ".join(map(str, size))
