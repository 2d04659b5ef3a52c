"""The memory fallback of a segmentation, by the rules of `model.fallback`, when a batch of tiles does not fit.

The steps: the uncompiled network, if it was compiled; fewer tiles per forward pass; in 2D and 2.5D fewer planes per
tile; smaller tiles; the CPU, with tiles of the size in the settings. Finished planes are kept. The run folder keeps the
options in use, so that a resumed run computes the remaining planes as the uninterrupted one would have.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_unetvnet.conventions import Length, Triple  # noqa: TC001 (the schema of saved options)
from napari_unetvnet.events import Notice
from napari_unetvnet.inference.compiled import compile_for_tiles, remove_compilation
from napari_unetvnet.inference.segment import resample_for, steps
from napari_unetvnet.inference.tiles import plan_tiles
from napari_unetvnet.model.fallback import MemoryFallback, Options
from napari_unetvnet.networks.base import by

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference.tiles import Tiles
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings

    Cheaper = tuple["TileOptions", str] | None

__all__ = ["FallbackSteps", "TileOptions"]

LEAST_EDGE = 32
"""Before the longest edge of a tile gets shorter than this on a GPU, which costs much accuracy, the CPU is used."""


@dataclass(frozen=True)
class TileOptions(Options):
    """How a batch of tiles is made to fit into memory; None stands for the settings.

    Parameters
    ----------
    batch : int, optional
        Tiles per forward pass.
    tile : tuple of 3 int, optional
        Voxels z, y, x.
    compiled : bool
        Whether the network is compiled, which changes the rounding; only with the first tile size.
    """

    batch: Length | None = None
    tile: Triple | None = None
    compiled: bool = False

    def applied_to(self, settings: SegmentSettings) -> SegmentSettings:
        """Give settings with the batch and tile of these options.

        Returns
        -------
        SegmentSettings
            Of the same kind.
        """
        changes = {"batch": self.batch, "tile": self.tile}
        return settings.model_copy(update={name: value for name, value in changes.items() if value is not None})


class FallbackSteps:
    """A segmentation that continues with smaller batches or tiles when memory runs out.

    Parameters
    ----------
    model : Model
        In the number format to compute in.
    volume : Volume, data of shape (C, Z, Y, X)
    file : Path, optional
        Of the run folder, for the options in use.
    work : callable, optional
        What is done on the tiles: a generator that takes the arguments of `inference.steps`, the default, and yields
        slabs with ``start`` and ``stop``.
    """

    def __init__(
        self,
        model: Model,
        volume: Volume,
        settings: SegmentSettings,
        file: Path | None = None,
        work: Callable[..., Generator[Any]] | None = None,
    ) -> None:
        self._model, self._volume, self._requested, self._work = model, volume, settings, work
        self._resampled = resample_for(model.card, volume, settings)
        self._compilation_decided = False
        self.fallback = MemoryFallback(
            model,
            TileOptions(),
            (self._uncompiled, self._fewer_tiles, self._fewer_planes, self._smaller_tiles, self._on_the_cpu),
            self._apply,
            self._kind(),
            lambda: f"one tile of {by(self._tiles().size)} voxels",
            file,
        )

    def steps(self, *, first_plane: int = 0, **options: Any) -> Iterator[Any]:
        """Go through the volume slab by slab.

        Parameters
        ----------
        first_plane : int
            Planes before it are left out, because a run is resumed.
        **options
            Of the work, such as those of `inference.steps`.

        Yields
        ------
        Slab (of the kind of the work) or Notice
            Finished planes in order, and a notice before the options change.

        Raises
        ------
        OutOfMemory
            If one tile of the smallest size does not fit on the CPU.
        UserError
            As for `inference.steps`.
        RuntimeError
            If the network fails for another reason.
        """
        if text := self._resume() if first_plane else self._begin():
            yield Notice(text)
        while True:
            with self.fallback.attempt() as attempt:
                yield from self._compile()
                work, settings = self._work or steps, self._settings()
                with closing(work(self._model, self._volume, settings, first_plane=first_plane, **options)) as slabs:
                    for slab in slabs:
                        self.fallback.worked()
                        first_plane = slab.stop
                        yield slab
            if not attempt.failed:
                return
            self._compilation_decided = True
            yield self.fallback.next("The tiles", f"from plane {first_plane} on ")

    def _settings(self, options: TileOptions | None = None) -> SegmentSettings:
        return (options or self.fallback.options).applied_to(self._requested)

    def _tiles(self, options: TileOptions | None = None) -> Tiles:
        return plan_tiles(self._model, self._resampled.shape, self._settings(options))

    def _begin(self) -> str:
        """Start with the options that the last segmentation of this kind needed; return a notice."""
        self.fallback.forget()
        if (remembered := self.fallback.remembered()) is None:
            return ""
        self.fallback.use(remembered)
        size, batch = by(self._tiles().size), self._settings().batch
        return (
            f"Such tiles did not fit into the memory of this device before, so {batch} tile(s) of {size} voxels are "
            "computed per forward pass; choose another tile size to try again."
        )

    def _resume(self) -> str:
        """Continue with the options of the interrupted run; return a notice."""
        self._compilation_decided = True
        if (saved := self.fallback.saved()) is None:
            return ""
        self.fallback.use(saved)
        if saved == TileOptions(compiled=True):
            return ""
        size, batch = by(self._tiles().size), self._settings().batch
        where = " on the CPU" if saved.cpu else ""
        return f"As before it was interrupted, the run uses {batch} tile(s) per forward pass, of {size} voxels{where}."

    def _compile(self) -> Generator[Notice]:
        """Compile the network if that saves time; in a resumed run, if it was compiled before."""
        options = self.fallback.options
        decision = options.compiled if self._compilation_decided else None
        compiled = yield from compile_for_tiles(self._model, self._resampled, self._tiles(), self._settings(), decision)
        if compiled != options.compiled:
            self.fallback.use(replace(options, compiled=compiled))

    def _apply(self, options: TileOptions) -> None:
        if not options.compiled:
            remove_compilation(self._model)

    def _uncompiled(self, options: TileOptions) -> Cheaper:
        if not options.compiled:
            return None
        return replace(options, compiled=False), "the network runs uncompiled"

    def _fewer_tiles(self, options: TileOptions) -> Cheaper:
        tiles, batch = self._tiles(options), self._settings(options).batch
        # With multi-view only one view is planned here, and the others may have more tiles.
        batch = batch if self._requested.view == "multi-view" else min(batch, len(tiles.places))
        if batch == 1:
            return None
        # The size stays: it may have been chosen for the larger batch.
        cheaper = replace(options, batch=batch // 2, tile=tiles.size)
        return cheaper, f"{batch // 2} are computed at a time instead of {batch}"

    def _fewer_planes(self, options: TileOptions) -> Cheaper:
        depth, height, width = self._tiles(options).size
        if self._model.card.dims == 3 or depth == 1:
            return None
        cheaper = replace(options, batch=1, tile=(depth // 2, height, width))
        return cheaper, f"they hold {depth // 2} planes instead of {depth}"

    def _smaller_tiles(self, options: TileOptions) -> Cheaper:
        """Halve tiles, unless they get too small, or are no cubes any more but are to be rotated."""
        size = self._tiles(options).size
        smaller = self._model.smaller(size)
        least = 1 if self._model.device.type == "cpu" else LEAST_EDGE
        if smaller is None or max(smaller) < least or (self._requested.tta == "rotations" and len(set(smaller)) > 1):
            return None
        text = (
            f"they are {by(smaller)} voxels instead of {by(size)}, so labels from there on differ slightly from those "
        )
        return replace(options, batch=1, tile=smaller), text + "of large tiles"

    def _on_the_cpu(self, options: TileOptions) -> Cheaper:
        if self._model.device.type == "cpu":
            return None
        cheaper = TileOptions(cpu=True, batch=1)
        self.fallback.use(cheaper)  # the tile size depends on its memory
        size = by(self._tiles(cheaper).size)
        return cheaper, f"segmentation continues on the CPU, which is slower, with tiles of {size} voxels"

    def _kind(self) -> str:
        """Describe all that the memory of a batch of tiles depends on."""
        card, settings, shape = self._model.card, self._requested, self._resampled.shape
        network = ("segment", card.network, card.option, card.view, card.channels, self._model.outputs)
        size = plan_tiles(self._model, shape, settings).size
        return " | ".join(map(str, (*network, settings.view, settings.tile, settings.batch, size, shape[1:])))
