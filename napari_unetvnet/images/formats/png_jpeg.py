"""PNG and JPEG images; labels are written as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.class_names import KEY, from_json, to_json
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.image_file import ImageFile

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.images.volume import Volume


def read(path: Path) -> ImageFile:
    """Read grey values or colours, alpha dropped."""
    from PIL import Image

    with reading(path):
        _check_end_mark(path)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the user's own file is no attack
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                deep_colour = "16B" in str(image.tile) and not image.mode.startswith("I")
                mode, array = image.mode, np.array(image)
                names = from_json(str(image.info.get(KEY, "")))
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    if deep_colour:
        raise DataProblem(f"{path.name} holds colours of 16 bits, which would be cut to 8; save it as TIFF.")
    if array.ndim == 2:
        return ImageFile(array[None, None], palette=mode == "P", class_names=names)
    colours = array[..., :-1] if mode.endswith("A") else array
    return ImageFile(np.ascontiguousarray(np.moveaxis(colours, -1, 0))[:, None])


def _check_end_mark(path: Path) -> None:
    """Refuse files whose end is missing, which a lenient decoder fills with grey."""
    content = path.read_bytes()
    is_jpeg = content.startswith(b"\xff\xd8")
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda") if is_jpeg else b"IEND\xaeB`\x82" not in content:
        raise ValueError("its end is missing")


def write(path: Path, array: Any, like: Volume) -> None:
    """Write labels (1, Y, X), or one mask (1, 1, Y, X), as PNG."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    facts = PngInfo()
    if like.class_names:
        facts.add_itxt(KEY, to_json(like.class_names))
    Image.fromarray(np.asarray(array[(0,) * (array.ndim - 2)])).save(path, pnginfo=facts)
