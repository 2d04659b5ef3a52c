"""Clean, split and count a label image.

Classes become single objects (`objects`), holes are filled, small pieces removed, nested regions put into each other,
and objects measured (`table_of`); `postprocess` does what the settings ask for, in one order. Which voxels belong
together can only be told from the whole image, so it is held in memory, while most is computed in the box around each
piece or plane by plane.
"""

from __future__ import annotations

from napari_unetvnet.postprocess.components import components
from napari_unetvnet.postprocess.holes import fill_holes
from napari_unetvnet.postprocess.nested import clean_brats
from napari_unetvnet.postprocess.objects import objects
from napari_unetvnet.postprocess.pipeline import Cleaned, postprocess
from napari_unetvnet.postprocess.table import Table, table_of

__all__ = ["Cleaned", "Table", "clean_brats", "components", "fill_holes", "objects", "postprocess", "table_of"]
