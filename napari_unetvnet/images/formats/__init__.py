"""The file formats: a row each says which endings are its own, what it can hold, and which module reads and writes it.

Readers, writers, messages, the help of settings and the docs take endings and limits from this one table. It loads no
library: the module of a format is imported when a file is read or written.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = [
    "FLOATS", "FORMATS", "INTEGERS", "Format", "Kind", "ending_of", "endings", "endings_for", "format_of", "listed",
    "sentence",
]  # fmt: skip

Kind = Literal["labels", "probabilities", "uncertainty"]
INTEGERS = {f"uint{bits}": 2**bits - 1 for bits in (8, 16, 32, 64)}
INTEGERS |= {f"int{bits}": 2 ** (bits - 1) - 1 for bits in (8, 16, 32, 64)}
"""Types of labels, and the highest value of each."""
FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a file format can hold, and where its reader and writer are.

    Parameters
    ----------
    endings : tuple of str
        In lower case. Those of two parts (.nii.gz) come first.
    module : str
        Has ``read(path) -> ImageFile`` and, if there are ``dtypes``, ``write(path, array, like)``.
    dtypes : tuple of str
        Types that are written, the smaller first. Labels are written in the first that holds all their values,
        fractions as they are, or in the last float. Without integers it takes no labels, without floats no fractions.
    keeps : tuple of {"affine", "second affine", "position", "spacing", "unit", "class names"}
        What is read back as it was written. The affine holds also how the voxels are turned, the position where the
        first one lies.
    planes, masks : int, optional
        At most so many planes, and masks of classes.
    long_endings : tuple of str
        Longer forms of its endings, which are no part of the name of an image.
    in_parts : tuple of str
        Endings of files of which only what is needed is read, if they are not compressed as a whole.
    lossy : bool
        Whether values change when they are written, so that the format can hold no labels.
    folder_files : tuple of str
        Where an image is a folder: files of which it has one. A path may name an array inside it (``a.zarr/labels``).
    datasets : bool
        Whether a file may hold several images, named ``file.h5:/path``.
    numbered : bool
        Whether a file may hold several images, named ``file.tif:2``.
    grows : bool
        Whether the module can also make an image that is filled while it is computed: it has ``create``,
        ``open_image`` and ``completing``.
    any_axes : bool
        Whether the axes of a file may be in any order, so that ``read(path, axes)`` takes those that a user has named.
    time : bool
        Whether results of time series are written.
    in_several : bool
        Whether a file may name others that hold a part of its voxels: the module has ``further_files(path)``.
    library : str
        The module of an optional library that reads and writes it.
    tables : bool
        Whether tables with the names of classes are written beside labels, for viewers that find none in the file.
    note : str
        A sentence for the reference.
    """

    name: str
    endings: tuple[str, ...]
    module: str
    dtypes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    planes: int | None = None
    masks: int | None = None
    long_endings: tuple[str, ...] = ()
    in_parts: tuple[str, ...] = ()
    lossy: bool = False
    folder_files: tuple[str, ...] = ()
    datasets: bool = False
    numbered: bool = False
    grows: bool = False
    any_axes: bool = False
    tables: bool = False
    time: bool = False
    in_several: bool = False
    library: str = ""
    note: str = ""

    @property
    def missing(self) -> str:
        """Say what must be installed; empty if all is there."""
        if not self.library or importlib.util.find_spec(self.library):
            return ""
        return f'{self.library}, which is not installed: pip install "napari-unetvnet[formats]".'

    def function(self, name: str) -> Callable[..., Any]:
        """Import a function of the format's module, such as ``read`` or ``write``."""
        function: Callable[..., Any] = getattr(importlib.import_module(self.module), name)
        return function

    def writes(self, kind: Kind) -> bool:
        """Whether results of a kind can be written; probabilities have two channels at least."""
        is_held = not set(self.dtypes).isdisjoint(INTEGERS if kind == "labels" else FLOATS)
        return is_held and not (kind == "probabilities" and self.masks == 1)

    def label_dtype(self, highest: int) -> str | None:
        """Choose the type for labels up to a value; None if there is none."""
        return next((dtype for dtype in self.dtypes if INTEGERS.get(dtype, -1) >= highest), None)

    def fraction_dtype(self, dtype: str) -> str:
        """Choose the type for fractions of a type; only for a format that writes some."""
        return dtype if dtype in self.dtypes else [held for held in self.dtypes if held in FLOATS][-1]

    def misfit(self, shape: Sequence[int], highest: int = 0, *, points: int = 1) -> str:
        """Say what of a result the format cannot hold.

        Parameters
        ----------
        shape : sequence of 3 or 4 int
            (Z, Y, X), or (K, Z, Y, X).
        highest : int
            The highest label.
        points : int
            How many time points.

        Returns
        -------
        str
            Such as "one plane, not 3"; empty if all can be held.
        """
        for limit, noun, count in (
            (None if self.time else 1, "time point", points),
            (self.planes, "plane", shape[-3]),
            (self.masks, "mask", shape[0] if len(shape) > 3 else 1),
        ):
            if limit is not None and count > limit:
                held = f"one {noun}" if limit == 1 else f"{limit} {noun}s"
                return f"{held}, not {count}"
        if highest and self.label_dtype(highest) is None:
            return f"labels to {max(INTEGERS.get(dtype, 0) for dtype in self.dtypes)}, not {highest}"
        return ""


LABELS = ("uint8", "uint16", "uint32", "uint64")
FORMATS = (
    Format(
        name="NIfTI", endings=(".nii.gz", ".nii"), module="napari_unetvnet.images.formats.nifti",
        dtypes=(*LABELS, "float32"), keeps=("affine", "second affine", "position", "spacing", "unit", "class names"),
        in_parts=(".nii",), tables=True, any_axes=True, time=True,
        note="The fourth axis, or any later one if the others have length 1, is channels; with --axes tzyx it is time, "
        "and so it is where a fifth one is channels. Units are m, mm and micrometer; others are converted to mm. A "
        "result on the grid of a NIfTI image has its qform and sform with their codes, its intent and description. "
        "Beside labels with names of classes lie tables of them for ITK-SNAP and 3D Slicer.",
    ),
    Format(
        name="NIfTI in two files", endings=(".hdr",), module="napari_unetvnet.images.formats.nifti",
        in_parts=(".hdr",), any_axes=True, in_several=True, note="The voxels are in the .img file beside it.",
    ),
    Format(
        name="TIFF", endings=(".tif", ".tiff"), module="napari_unetvnet.images.formats.tiff",
        dtypes=(*LABELS[:3], "float32"), keeps=("position", "spacing", "unit", "class names"),
        long_endings=(".ome.tif", ".ome.tiff"), in_parts=(".tif", ".tiff"), any_axes=True, numbered=True, time=True,
        in_several=True,
        note="Written for ImageJ; what ImageJ cannot hold, and .ome.tif, as OME-TIFF. Space is read from both kinds. "
        "`file.tif:2` names the second of several images. A set of OME-TIFF files is read from any of them. Where 0 is "
        "white, values are inverted, so that bright is high. Palette colours are labels only. Resolution tags of "
        "1000 pixels an inch or more are the size of a pixel.",
    ),
    Format(
        name="npy", endings=(".npy",), module="napari_unetvnet.images.formats.npy", dtypes=(*LABELS, *FLOATS),
        in_parts=(".npy",), any_axes=True, time=True, note="(Y, X), (Z, Y, X) or (C, Z, Y, X), or as --axes says.",
    ),
    Format(
        name="OME-Zarr", endings=(".zarr",), module="napari_unetvnet.images.formats.ome_zarr",
        dtypes=(*LABELS, *FLOATS), keeps=("position", "spacing", "unit", "class names"), long_endings=(".ome.zarr",),
        in_parts=(".zarr",), folder_files=("zarr.json", ".zgroup", ".zarray"), grows=True,
        any_axes=True, time=True,
        note="Zarr 2 and 3, the finest level, or a plain array; a path inside the folder names one of several. The "
        "folder may have any name. Written as OME-Zarr 0.5 with coarser levels and check sums.",
    ),
    Format(
        name="OME-Zarr in a zip file", endings=(".zarr.zip",), module="napari_unetvnet.images.formats.ome_zarr",
        long_endings=(".ome.zarr.zip",), in_parts=(".zarr.zip",), datasets=True, any_axes=True,
        note="`file.zarr.zip:/path` names one of several images.",
    ),
    Format(
        name="NRRD", endings=(".nrrd",), module="napari_unetvnet.images.formats.itk", dtypes=(*LABELS, *FLOATS[1:]),
        library="SimpleITK", any_axes=True, keeps=("affine", "position", "spacing", "unit", "class names"),
        note="By SimpleITK (`napari-unetvnet[formats]`). Lengths are millimetres, other units are converted and noted. "
        "Vectors, or a fourth axis, are channels; with --axes tzyx a fourth axis is time.",
    ),
    Format(
        name="MetaImage", endings=(".mha",), module="napari_unetvnet.images.formats.itk", dtypes=(*LABELS, *FLOATS[1:]),
        library="SimpleITK", any_axes=True, keeps=("affine", "position", "spacing", "unit", "class names"),
        note="As NRRD.",
    ),
    Format(
        name="NRRD or MetaImage header", endings=(".nhdr", ".mhd"), module="napari_unetvnet.images.formats.itk",
        library="SimpleITK", any_axes=True, in_several=True,
        note="With the voxels in a file beside it, which the header names.",
    ),
    Format(
        name="HDF5", endings=(".h5", ".hdf5", ".hdf"), module="napari_unetvnet.images.formats.hdf5",
        in_parts=(".h5", ".hdf5", ".hdf"), datasets=True, any_axes=True, in_several=True,
        note="`file.h5:/path` names one of several datasets. The voxel size is the attribute element_size_um.",
    ),
    Format(
        name="PNG", endings=(".png",), module="napari_unetvnet.images.formats.png_jpeg", dtypes=LABELS[:2],
        keeps=("class names",), planes=1, masks=1,
        note="Colours are channels, alpha is dropped. Colours of 16 bits are refused.",
    ),
    Format(
        name="JPEG", endings=(".jpg", ".jpeg"), module="napari_unetvnet.images.formats.png_jpeg", lossy=True,
        note="Colours are channels.",
    ),
    Format(
        name="Microscope files", endings=(".czi", ".nd2", ".lif", ".oib", ".oif", ".vsi", ".dv"),
        module="napari_unetvnet.images.formats.microscope", library="bioio", datasets=True,
        in_parts=(".czi", ".nd2", ".lif", ".oib", ".oif", ".vsi", ".dv"),
        note="By bioio (`napari-unetvnet[formats]`) and its reader for the kind of file, which is installed beside it, "
        "such as `bioio-czi`, `bioio-nd2`, `bioio-lif` or `bioio-bioformats` (mind their licences). `file.czi:2` or "
        "`file.lif:Position 3` names one of several scenes. Axes, voxel size, time step and names of channels are "
        "those of the file.",
    ),
    Format(
        name="GIF", endings=(".gif",), module="napari_unetvnet.images.formats.gif", planes=1, masks=1,
        note="One frame. Grey values, or as labels the indices of a palette with colours.",
    ),
)  # fmt: skip


def format_of(path: str | Path) -> Format | None:
    """Give the format that the ending of a path names, None if there is none."""
    name = str(path).lower()
    return next((each for each in FORMATS if name.endswith(each.endings)), None)


def ending_of(path: str | Path) -> str:
    """Give the ending of a path, in its longer form if it has it; empty if no format has it."""
    kind, name = format_of(path), str(path).lower()
    own = () if kind is None else (*kind.long_endings, *kind.endings)
    return next((ending for ending in own if name.endswith(ending)), "")


def endings(formats: Iterable[Format] | None = None) -> tuple[str, ...]:
    """Give the endings of some formats, by default of all, which can all be read."""
    return tuple(ending for each in (FORMATS if formats is None else formats) for ending in each.endings)


def endings_for(kind: Kind, shape: Sequence[int] = (1, 1, 1), highest: int = 0, *, points: int = 1) -> tuple[str, ...]:
    """Give the endings with which a result can be written.

    Parameters
    ----------
    kind : {"labels", "probabilities", "uncertainty"}
    shape : sequence of 3 or 4 int
        (Z, Y, X), or (K, Z, Y, X).
    highest : int
        The highest label.
    points : int
        How many time points.

    Returns
    -------
    tuple of str
    """
    return endings(each for each in FORMATS if each.writes(kind) and not each.misfit(shape, highest, points=points))


def listed(words: Iterable[str]) -> str:
    """Join words with commas."""
    return ", ".join(words)


def sentence() -> str:
    """Name the formats, and those that are only read."""
    return listed(_named())


def _named() -> Iterator[str]:
    for each in FORMATS:
        if each.lossy:
            yield f"{each.name} (images, read only)"
        else:
            yield each.name if each.dtypes else f"{each.name} (read only)"
