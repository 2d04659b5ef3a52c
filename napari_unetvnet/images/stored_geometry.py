"""Write where the voxels of an image lie as text, with all that its format says of it, and read it back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_unetvnet.images.geometry import Geometry

__all__ = ["as_geometry", "as_text"]


KINDS = "biufS"
"""Of the types of numbers and bytes that a header holds."""


def as_text(geometry: Geometry) -> str:
    """Write a geometry as JSON."""
    affines = {
        name: None if (value := getattr(geometry, name)) is None else np.asarray(value, np.float64).tolist()
        for name in ("affine", "other_affine")
    }
    header = {name: _coded(value) for name, value in geometry.header.items()}
    return json.dumps({"spacing": geometry.spacing, "unit": geometry.unit, **affines, "header": header})


def as_geometry(text: str) -> Geometry:
    """Read what `as_text` has written: equal to the geometry, also in the types of the header."""
    stored: dict[str, Any] = json.loads(text)
    z, y, x = stored["spacing"]
    affine, other = (
        None if stored[name] is None else np.array(stored[name], np.float64) for name in ("affine", "other_affine")
    )
    header = {name: _decoded(value) for name, value in stored["header"].items()}
    return Geometry((z, y, x), stored["unit"], affine, other, header)


def _coded(value: Any) -> dict[str, Any]:
    """Describe an array of numbers or of bytes, or a table by number of plane."""
    if isinstance(value, Mapping):
        return {"planes": list(value.items())}
    array = np.asarray(value)
    values = array.tolist()
    if array.dtype.kind == "S":
        values = [each.decode("latin-1") for each in array.reshape(-1).tolist()]
    return {"dtype": array.dtype.str, "shape": array.shape, "values": values}


def _decoded(stored: Mapping[str, Any]) -> Any:
    if "planes" in stored:
        return dict(stored["planes"])
    values, kind = stored["values"], np.dtype(stored["dtype"]).kind
    if kind not in KINDS:
        raise ValueError(f"a header has no numbers of type {stored['dtype']}")
    if kind == "S":
        values = [each.encode("latin-1") for each in values]
    return np.array(values, stored["dtype"]).reshape(stored["shape"])
