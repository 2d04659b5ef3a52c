"""PNG and JPEG images; labels are written as PNG."""

from __future__ import annotations

import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.class_names import KEY, from_json, to_json
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.declared import check_decoded
from napari_unetvnet.images.image_file import ImageFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import PIL.ImageFile

    from napari_unetvnet.images.volume import Volume


PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
"""What these files begin with."""
ORIENTATION = 0x0112
"""The number of the EXIF tag."""
PILLOW_COPIES = 3.4
"""Memory that Pillow takes to give the pixels as an array, of the size of the array (measured: 3.03 to 3.35)."""
JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"


def read(path: Path) -> ImageFile:
    """Read grey values or colours, alpha dropped."""
    with reading(path):
        _check_complete(path)
        with opened(path, "PNG", "JPEG") as image:
            deep_colour = "16B" in str(image.tile) and not image.mode.startswith("I")
            mode, array, turned = image.mode, np.array(image), int(image.getexif().get(ORIENTATION, 1))
            names = from_json(str(image.info.get(KEY, "")))
    if deep_colour:
        raise DataProblem(f"{path.name} holds colours of 16 bits, which would be cut to 8; save it as TIFF.")
    if array.ndim == 2:
        return ImageFile(array[None, None], palette=mode == "P", class_names=names, orientation=turned)
    colours = array[..., :-1] if mode.endswith("A") else array
    if (
        mode.endswith("A")
        and np.ptp(array[..., -1])
        and not np.ptp(colours.reshape(-1, colours.shape[-1]), axis=0).any()
    ):
        raise DataProblem(
            f"{path.name} is of one colour, and its picture is in the transparency (alpha), which is not read; save it "
            "without transparency."
        )
    return ImageFile(np.ascontiguousarray(np.moveaxis(colours, -1, 0))[:, None], orientation=turned)


@contextmanager
def opened(path: Path, *formats: str) -> Iterator[PIL.ImageFile.ImageFile]:
    """Open a picture that fits into the free memory. Pillow's own limit is a number of pixels, so it is turned off.

    Yields
    ------
    PIL.ImageFile.ImageFile
        Not decoded yet.
    """
    from PIL import Image, ImageMode

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path, formats=formats) as image:
            mode = ImageMode.getmode(image.mode)
            check_decoded(path, (image.height, image.width, len(mode.bands)), mode.typestr, PILLOW_COPIES)
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _check_complete(path: Path) -> None:
    """Refuse files whose end is missing, or PNG with a wrong check sum; a lenient decoder fills the gap with grey."""
    check_decoded(path, (path.stat().st_size,), np.uint8)
    content = path.read_bytes()
    if not content.startswith(PNG):
        if content.startswith(JPEG) and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN):
            raise ValueError("its end is missing")
        return
    start, kind = len(PNG), b""
    while kind != b"IEND":
        if start + 12 > len(content):
            raise ValueError("its end is missing")
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        end = start + 8 + length
        if zlib.crc32(content[start + 4 : end]).to_bytes(4, "big") != content[end : end + 4]:
            raise ValueError(f"the check sum of {kind.decode('latin-1')} is wrong")
        start = end + 4


def write(path: Path, array: Any, like: Volume) -> None:
    """Write labels (1, Y, X), or one mask (1, 1, Y, X), as PNG."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    facts = PngInfo()
    if like.class_names:
        facts.add_itxt(KEY, to_json(like.class_names))
    Image.fromarray(np.asarray(array[(0,) * (array.ndim - 2)])).save(path, pnginfo=facts)
