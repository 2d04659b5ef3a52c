"""What to do when a batch of tiles does not fit into memory; `model.fallback` says how.

The steps: the network as it is written, if it was compiled; fewer tiles at once; in 2D and 2.5D fewer planes in a tile;
smaller tiles; the CPU, with tiles as large as were asked for. Planes that are finished are kept. A run folder keeps the
options with which the run is resumed, so that the planes that are left come out as they would have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_unetvnet.events import Notice
from napari_unetvnet.inference.compiled import compile_for_tiles, run_as_written
from napari_unetvnet.inference.segment import Slab, resample_for, steps
from napari_unetvnet.inference.tiles import plan_tiles
from napari_unetvnet.model.fallback import MemoryFallback, Options
from napari_unetvnet.networks.base import by

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference.tiles import Tiles
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings

    Cheaper = tuple["TileOptions", str] | None

__all__ = ["FallbackSteps", "TileOptions"]

LEAST_EDGE = 32
"""A GPU is given up before the longest edge of a tile is shorter, from which labels would suffer much."""


@dataclass(frozen=True)
class TileOptions(Options):
    """How a batch of tiles is made to fit into memory; None is what the settings say.

    Parameters
    ----------
    batch : int, optional
        Tiles at once.
    tile : tuple of 3 int, optional
        Their size.
    compiled : bool
        Whether the network is compiled, which changes the rounding; only for tiles as large as were asked for.
    """

    batch: int | None = None
    tile: Triple | None = None
    compiled: bool = False

    def in_place_of(self, settings: SegmentSettings) -> SegmentSettings:
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


class FallbackSteps:
    """A segmentation that continues with less where memory does not suffice.

    Parameters
    ----------
    model : Model
        In the number format in which it is to compute.
    volume : Volume, data of shape (C, Z, Y, X)
    settings : SegmentSettings
    file : Path, optional
        Of the run, to keep in how tiles are computed.
    """

    def __init__(self, model: Model, volume: Volume, settings: SegmentSettings, file: Path | None = None) -> None:
        self._model, self._volume, self._asked = model, volume, settings
        self._seen = resample_for(model.card, volume, settings)
        self._compilation_decided = False
        self.fallback = MemoryFallback(
            model,
            TileOptions(),
            (self._run_as_written, self._fewer_tiles, self._fewer_planes, self._smaller_tiles, self._on_the_cpu),
            self._apply,
            self._kind(),
            lambda: f"one tile of {by(self._tiles().size)} voxels",
            file,
        )

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
        if text := self._resume() if first_plane else self._begin():
            yield Notice(text)
        while True:
            with self.fallback.attempt() as attempt:
                yield from self._compile()
                for slab in steps(self._model, self._volume, self._settings(), first_plane=first_plane, **further):
                    self.fallback.worked()
                    first_plane = slab.start + slab.labels.shape[-3]
                    yield slab
            if not attempt.failed:
                return
            self._compilation_decided = True
            yield self.fallback.next("The tiles", f"from plane {first_plane} on ")

    def _settings(self, options: TileOptions | None = None) -> SegmentSettings:
        return (options or self.fallback.options).in_place_of(self._asked)

    def _tiles(self, options: TileOptions | None = None) -> Tiles:
        return plan_tiles(self._model, self._seen.shape, self._settings(options))

    def _begin(self) -> str:
        """Begin as the last segmentation of the kind had to go on, and say so."""
        self.fallback.forget()
        if (known := self.fallback.remembered()) is None:
            return ""
        self.fallback.use(known)
        size, batch = by(self._tiles().size), self._settings().batch
        return (
            f"Such tiles did not fit into this device's memory before; it begins with tiles {batch} at once, of {size} "
            "voxels; give another tile to try anew."
        )

    def _resume(self) -> str:
        """Continue as the run did before it was interrupted, and say so."""
        self._compilation_decided = True
        if (known := self.fallback.saved()) is None:
            return ""
        self.fallback.use(known)
        if known == TileOptions(compiled=True):
            return ""
        size, batch = by(self._tiles().size), self._settings().batch
        where = " on the CPU" if known.cpu else ""
        return f"As before it was interrupted, the run uses {batch} tile(s) per forward pass, of {size} voxels{where}."

    def _compile(self) -> Generator[Notice]:
        """Compile the network if it pays; in a run that is resumed, if it was."""
        options = self.fallback.options
        known = options.compiled if self._compilation_decided else None
        compiled = yield from compile_for_tiles(self._model, self._seen, self._tiles(), self._settings(), known)
        if compiled != options.compiled:
            self.fallback.use(replace(options, compiled=compiled))

    def _apply(self, options: TileOptions) -> None:
        if not options.compiled:
            run_as_written(self._model)

    def _run_as_written(self, options: TileOptions) -> Cheaper:
        if not options.compiled:
            return None
        return replace(options, compiled=False), "the network runs as it is written, and not as it was compiled"

    def _fewer_tiles(self, options: TileOptions) -> Cheaper:
        tiles, asked = self._tiles(options), self._settings(options).batch
        # Of several views only one is planned here, and the others may have more tiles.
        batch = asked if self._asked.view == "multi-view" else min(asked, len(tiles.places))
        if batch == 1:
            return None
        # The size is kept, which may have been chosen for that batch.
        cheaper = replace(options, batch=batch // 2, tile=tiles.size)
        return cheaper, f"{batch // 2} are computed at once instead of {batch}"

    def _fewer_planes(self, options: TileOptions) -> Cheaper:
        depth, height, width = self._tiles(options).size
        if self._model.card.dims == 3 or depth == 1:
            return None
        cheaper = replace(options, batch=1, tile=(depth // 2, height, width))
        return cheaper, f"they hold {depth // 2} planes instead of {depth}"

    def _smaller_tiles(self, options: TileOptions) -> Cheaper:
        """Halve tiles, if it is worth it, and they can still be turned as the settings want."""
        size = self._tiles(options).size
        smaller = self._model.smaller(size)
        least = 1 if self._model.device.type == "cpu" else LEAST_EDGE
        if smaller is None or max(smaller) < least or (self._asked.tta == "rotations" and len(set(smaller)) > 1):
            return None
        text = f"they are {by(smaller)} voxels instead of {by(size)}, so that labels from there on are not quite those "
        return replace(options, batch=1, tile=smaller), text + "that large tiles give"

    def _on_the_cpu(self, options: TileOptions) -> Cheaper:
        if self._model.device.type == "cpu":
            return None
        cheaper = TileOptions(cpu=True, batch=1)
        self.fallback.use(cheaper)  # its memory decides how large tiles are
        size = by(self._tiles(cheaper).size)
        return cheaper, f"segmentation continues on the CPU, which is slower, with tiles of {size} voxels"

    def _kind(self) -> str:
        """Say what the memory of a batch of tiles depends on."""
        card, asked, shape = self._model.card, self._asked, self._seen.shape
        network = ("segment", card.network, card.option, card.view, card.channels, card.outputs)
        size = plan_tiles(self._model, shape, asked).size
        return " | ".join(map(str, (*network, asked.view, asked.tile, asked.batch, size, shape[1:])))
