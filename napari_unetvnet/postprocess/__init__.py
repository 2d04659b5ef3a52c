"""Clean, split and count a label image.

Classes are divided into objects (`objects`), holes are filled, lines thinned (`thinned`) and followed (`paths_of`),
small components removed, nested regions made consistent, and objects measured (`table_of`); `postprocess` applies the
settings in a fixed order. Connectivity needs the whole image, so it is held in memory; most computations run in the box
around each component, or plane by plane.
"""

from __future__ import annotations

from napari_unetvnet.postprocess.components import components
from napari_unetvnet.postprocess.holes import fill_holes
from napari_unetvnet.postprocess.lines import LinePath, paths_of, thinned
from napari_unetvnet.postprocess.nested import clean_brats
from napari_unetvnet.postprocess.objects import objects
from napari_unetvnet.postprocess.pipeline import Cleaned, postprocess
from napari_unetvnet.postprocess.table import Table, table_of

__all__ = [
    "Cleaned",
    "LinePath",
    "Table",
    "clean_brats",
    "components",
    "fill_holes",
    "objects",
    "paths_of",
    "postprocess",
    "table_of",
    "thinned",
]
