"""The time points of a series that are chosen."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from napari_unetvnet.images.time_axis import TIMES
from napari_unetvnet.settings.labels import numbers

__all__ = ["TimePoint", "TimePoints"]


def _text(value: Any) -> Any:
    """Accept a number as well as text."""
    return str(value) if type(value) is int else value


def _checked(value: str) -> str:
    if not TIMES.fullmatch(value):
        raise ValueError(f"Time point {value!r} cannot be read; give a number from 0 on, or begin:end:step.")
    return value


def _row(value: Any) -> Any:
    """Accept a single number, and text with several."""
    return (value,) if type(value) is int else numbers(value)


TimePoint = Annotated[str, BeforeValidator(_text), AfterValidator(_checked)]
TimePoints = Annotated[tuple[TimePoint, ...], BeforeValidator(_row)]
