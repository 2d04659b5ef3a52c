"""NRRD and MetaImage, the files of 3D Slicer and ITK, by SimpleITK: (x, y, z) with positions in millimetres.

ITK counts positions to the left, posterior and superior, and the affines here, as those of NIfTI, to the right,
anterior and superior: x and y change sign. The formats have no unit of their own and take lengths as millimetres, so a
result in other units is written in millimetres, with the unit as a further entry of the header, and read back in it.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.class_names import from_json, to_json
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.declared import check_beside, check_decoded
from napari_unetvnet.images.geometry import Geometry, spacing_of, step_to
from napari_unetvnet.images.image_file import ImageFile, series_of
from napari_unetvnet.images.units import METRES, unit_name

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.images.volume import Volume

UNIT, CLASSES = "napari_unetvnet_unit", "napari_unetvnet_classes"
"""Entries of the header for what the formats have no room for."""
HEADER = re.compile(rb"NRRD.*?(\r?\n){2}|.*?ElementDataFile *= *[^\n]*\n", re.DOTALL)
HEADER_BYTES = 1 << 20
LONGEST_FIELD = 800
"""Bytes of a line that is neither a comment nor an entry of someone's own."""
COMPRESSED = re.compile(rb"^(encoding: *gz(ip)?\s*$|CompressedData *= *True)", re.MULTILINE | re.IGNORECASE)
DATA_FILE = re.compile(rb"^(?:data ?file: *|ElementDataFile *= *)(.*)$", re.MULTILINE | re.IGNORECASE)
ITK_COPIES = 2
"""ITK's own voxels, and the array that is made of them."""
TURNED = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From positions of ITK to those of NIfTI, and back."""


def read(path: Path, axes: str = "") -> ImageFile:
    """Read a volume; vectors, or else a fourth axis, are channels, or time if ``axes`` holds t."""
    itk = _library(path)
    with reading(path, zlib.error):
        check_beside(path, further_files(path))
        _check_lines(path)
        reader = itk.ImageFileReader()
        reader.SetFileName(str(path))
        _check_sum(path, _declared(path, itk, reader))
        image = reader.Execute()
        facts = {key: image.GetMetaData(key) for key in (UNIT, CLASSES) if image.HasMetaDataKey(key)}
        array = itk.GetArrayFromImage(image)
        geometry = _geometry(image, facts.get(UNIT, "mm"))
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
        planes = array if image.GetDimension() > 2 else array[:, None]
    elif image.GetDimension() > 3:
        planes = array
    else:
        planes = array[None] if image.GetDimension() > 2 else array[None, None]
    if planes.ndim != 4:
        raise DataProblem(f"{path.name} has {planes.ndim} axes; save one volume (x, y, z) or (x, y, z, channel).")
    names = from_json(facts.get(CLASSES, ""))
    if "t" in axes and image.GetDimension() > 3:
        return series_of(tuple(planes[:, None]), float(image.GetSpacing()[3]), geometry=geometry, class_names=names)
    return ImageFile(planes, geometry, class_names=names)


def _library(path: Path) -> Any:
    """Import SimpleITK, which is not installed everywhere."""
    try:
        import SimpleITK
    except ImportError as error:
        raise FileProblem(
            f"{path.name} is read and written by SimpleITK, which is not installed: "
            'pip install "napari-unetvnet[formats]".'
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def _check_lines(path: Path) -> None:
    """Refuse long fields in the header of an NRRD file, which end the process in ITK instead of being an error."""
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES)
    if not text.startswith(b"NRRD"):
        return
    header = HEADER.match(text)
    for line in (header[0] if header else text).splitlines():
        if len(line) > LONGEST_FIELD and not line.startswith(b"#") and b":=" not in line[:LONGEST_FIELD]:
            raise ValueError(f"a line of its header has {len(line)} bytes, more than the {LONGEST_FIELD} of a field")


def _declared(path: Path, itk: Any, reader: Any) -> int:
    """Give the bytes of the voxels that a header declares; refuse those that do not fit into the free memory."""
    reader.ReadImageInformation()
    kind = itk.GetPixelIDValueAsString(reader.GetPixelID())  # such as "vector of 16-bit signed integer"
    bits = int(found[1]) if (found := re.search(r"(\d+)-bit", kind)) else 64
    values = f"u{bits // 8}"
    shape: list[int] = [reader.GetNumberOfComponents(), *reader.GetSize()[::-1]]
    check_decoded(path, shape, values, ITK_COPIES)
    return math.prod(shape) * np.dtype(values).itemsize


def _check_sum(path: Path, size: int) -> None:
    """Unpack compressed voxels to the check sum at their end, which ITK passes over; there are ``size`` bytes."""
    voxels, start = _compressed(path)
    if voxels is None:
        return
    count, unpacked = 0, zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip, as the stream says
    with voxels.open("rb") as file:
        file.seek(start)
        while not unpacked.eof and (part := file.read(1 << 20)):
            while part and not unpacked.eof:
                count += len(unpacked.decompress(part, 1 << 24))
                if count > size:
                    raise ValueError(f"its header declares {size} bytes of voxels, and more are there")
                part = unpacked.unconsumed_tail
    if not unpacked.eof:
        raise EOFError("the end of its voxels is missing")


def _compressed(path: Path) -> tuple[Path | None, int]:
    """Find where compressed voxels begin, here or in the file that the header names; None if they are not packed."""
    with path.open("rb") as file:
        header = HEADER.match(file.read(HEADER_BYTES))
    if header is None or not COMPRESSED.search(header[0]):
        return None, 0
    place = DATA_FILE.search(header[0])
    name = "LOCAL" if place is None else place[1].decode().strip()
    if name.startswith("LIST") or "%" in name:  # one file for each plane
        return None, 0
    return (path, header.end()) if name == "LOCAL" else (path.parent / name, 0)


def further_files(path: Path) -> list[Path]:
    """Give the files of the voxels that a header names: one, or one for each plane."""
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES)
    place = DATA_FILE.search(text)
    if place is None:
        return []
    name = place[1].decode(errors="replace").strip()
    if name.startswith("LIST"):
        lines = text[place.end() :].decode(errors="replace").splitlines()
        return [path.parent / line.strip() for line in lines if line.strip()]
    if "%" in name:  # a pattern with numbers
        return sorted(path.parent.glob(re.sub(r"%\d*d", "*", name.split()[0])))
    return [] if name == "LOCAL" else [path.parent / name]


def _geometry(image: Any, unit: str) -> Geometry:
    """Give the place of the voxels, in a unit."""
    n = min(3, image.GetDimension())
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)
    affine[:n, :n] = (directions * image.GetSpacing())[:n, :n]
    affine[:n, 3] = image.GetOrigin()[:n]
    affine = step_to(1 / _in_millimetres(unit)) @ TURNED @ affine
    return Geometry(spacing_of(affine), unit, affine)


def _in_millimetres(unit: str) -> float:
    """Give the length of a unit; 1 if it is not known."""
    return METRES.get(unit_name(unit), METRES["mm"]) / METRES["mm"]


def write(path: Path, array: Any, like: Volume) -> None:
    """Write (x, y, z), of several classes or masks as vectors, compressed; both formats keep a check sum."""
    itk = _library(path)
    data = np.asarray(array[...])
    vectors = data.ndim == 4
    image = itk.GetImageFromArray(np.moveaxis(data, 0, -1) if vectors else data, isVector=vectors)
    geometry, unit = like.geometry, unit_name(like.unit)
    affine = np.diag([*geometry.spacing[::-1], 1.0]) if geometry.affine is None else TURNED @ geometry.affine
    affine = step_to(_in_millimetres(unit)) @ affine
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(edges.tolist())
    image.SetDirection((affine[:3, :3] / edges).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    if unit != "mm":
        image.SetMetaData(UNIT, unit)
    if like.class_names:
        image.SetMetaData(CLASSES, to_json(like.class_names))
    try:
        itk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:  # its only way to say what the disk said
        raise OSError(str(error).strip().splitlines()[-1]) from error
