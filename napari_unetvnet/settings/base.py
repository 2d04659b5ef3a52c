"""Base of all settings: types, frozen models, and a sentence for each mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_unetvnet.conventions import Device, Precision
from napari_unetvnet.errors import SettingsProblem, near_names
from napari_unetvnet.losses import LossTerm

__all__ = ["ComputeSettings", "Settings", "checked"]


class Settings(BaseModel):
    """Frozen settings that refuse unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    left_open: ClassVar[tuple[str, ...]] = ()
    """Fields that are chosen from the data where they are not set."""


class ComputeSettings(Settings):
    """Device and number format."""

    device: Device = "auto"
    """Device to compute on; auto takes a CUDA GPU if there is one."""
    precision: Precision = "auto"
    """Number format of the network; auto is bf16 where the device is faster in it, else fp32. fp16 is for GPUs only."""


Model = TypeVar("Model", bound=Settings)


def checked(kind: type[Model], values: dict[str, Any]) -> Model:
    """Create settings from plain values, with a sentence for each mistake.

    Returns
    -------
    Settings
        An instance of ``kind``.

    Raises
    ------
    SettingsProblem
        One line for each value that is unknown, of the wrong type, out of range, or does not fit another.
    """
    if lines := [line for name, value in values.items() for line in _bad_texts(name, value)]:
        raise SettingsProblem(*lines)
    try:
        return kind(**values)
    except ValidationError as error:
        lines = [line for item in error.errors() for line in _sentences(kind, item)]
        raise SettingsProblem(*dict.fromkeys(lines)) from None
    except OSError as error:  # of a path that no file system takes, such as one that is too long
        raise SettingsProblem(
            f"{error.filename} cannot be used ({error.strerror or error}); give another path."
        ) from error


def _bad_texts(name: str, value: Any) -> Iterator[str]:
    """Refuse texts with a NUL, which are no names of files."""
    if isinstance(value, str | Path):
        if "\0" in str(value):
            yield f"Setting {name}={str(value)!r} holds a NUL character, which no name of a file has; leave it out."
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _bad_texts(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _bad_texts(name, inner)


def _sentences(kind: type[Settings], item: Any) -> list[str]:
    """Turn one pydantic error into sentences that say what was given, what was expected, what to do."""
    if item["type"] == "value_error":
        return str(item["ctx"]["error"]).split("\n")
    place = [str(part) for part in item["loc"]]
    name = ".".join(place)
    if place[0] == "option":
        return [f"Setting {'.'.join(place[:2])}={item['input']}: an option is a number, a text, or true or false."]
    if item["type"] == "extra_forbidden":
        names = LossTerm.model_fields if place[0] == "loss" else kind.model_fields
        return [f"There is no setting {name!r}{near_names(place[-1], names)}"]
    if item["type"] == "string_unicode":
        return [
            f"Setting {name}={item['input']!r} holds bytes that are no UTF-8; rename the file or folder, or, if the "
            "name looks right elsewhere, set the variable PYTHONUTF8=1."
        ]
    if item["type"] == "missing" and len(place) == 1:
        return [f"Setting {name} is missing: {kind.model_fields[name].description}"]
    if item["type"] == "missing":
        return [f"Setting {place[0]}={item['input']}: {name} is missing."]
    return [f"Setting {name}={item['input']}: {item['msg'].lower()}."]
