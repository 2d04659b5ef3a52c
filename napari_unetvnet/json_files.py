"""JSON files of our own, read back by a schema: a sentence for what is damaged, never a traceback or another value.

A schema does not see that a number was changed to another one in its range. Where a result depends on such a number,
the file is sealed by a check sum.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import check_regular, write_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_json", "read_sealed", "validated", "write_json", "write_sealed"]

T = TypeVar("T")

CHECK = "check"
"""Key of the check sum of a sealed file."""
STAND_INS = {code: code + 0x102000 for code in range(0xD800, 0xE000)}
"""Private characters instead of surrogates, which Python has for the bytes of names that are no UTF-8."""
SURROGATES = {stand_in: code for code, stand_in in STAND_INS.items()}


def write_json(path: Path, value: Any) -> None:
    """Write what `read_json` reads, whole or not at all."""
    write_text(path, json.dumps(value, indent=2))


def read_json(path: Path, kind: type[T], advice: str) -> T:
    """Read a JSON file of our own; every one is read here.

    Parameters
    ----------
    kind : type
        What it should hold: dict or list, or any other type that pydantic knows, such as a dataclass, with the ranges
        of its values. Nothing is converted but lists to tuples and whole numbers to others.
    advice : str
        What to do where it cannot be read: the end of a sentence.

    Returns
    -------
    An instance of ``kind``

    Raises
    ------
    FileProblem
        If it is missing, no file, cut off, no UTF-8, or holds anything else.
    """
    check_regular(path)
    try:
        data = path.read_bytes()
        value = json.loads(data.decode("utf-8"))
    except OSError as error:
        raise FileProblem(f"{path} cannot be read ({error.strerror or error}); {advice}.") from error
    except (ValueError, RecursionError) as error:
        raise FileProblem(f"{path} is no JSON or is cut off ({error}); {advice}.") from error
    if kind in (dict, list):
        if not isinstance(value, kind):
            raise FileProblem(f"{path} should hold a {kind.__name__}, not {type(value).__name__}; {advice}.")
        return value
    return validated(data, kind, f"{path} is damaged", advice)


def validated(data: str | bytes, kind: type[T], subject: str, advice: str) -> T:
    """Check JSON of our own by its schema.

    Parameters
    ----------
    kind : type
        As for `read_json`.
    subject, advice : str
        The start and the end of a sentence where it does not fit.

    Returns
    -------
    An instance of ``kind``

    Raises
    ------
    FileProblem
        With the first value that does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileProblem(f"{subject} (no JSON: {error}); {advice}.") from error
    text = json.dumps(whole, ensure_ascii=False)
    try:
        value = TypeAdapter(kind).validate_json(text.translate(STAND_INS), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{where}: {first['msg']}" if where else first["msg"]
        raise FileProblem(f"{subject} ({message}); {advice}.") from error
    if is_dataclass(kind) and set(whole) != (names := {field.name for field in fields(kind)}):
        raise FileProblem(f"{subject} (expected {', '.join(sorted(names))}); {advice}.")
    return value if text.isascii() else _with_surrogates(value)


def _with_surrogates(value: Any) -> Any:
    """Give a value with the surrogates of names that are no UTF-8 instead of their stand-ins."""
    if isinstance(value, str):
        return value.translate(SURROGATES)
    if isinstance(value, dict):
        return {_with_surrogates(key): _with_surrogates(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_with_surrogates, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _with_surrogates(getattr(value, each.name)) for each in fields(value)})
    return value


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write what `read_sealed` reads, whole or not at all."""
    write_json(path, value | {CHECK: _check_sum(value)})


def read_sealed(path: Path, kind: type[T], advice: str) -> T:
    """Read a file of `write_sealed`, as `read_json` does.

    Returns
    -------
    An instance of ``kind``

    Raises
    ------
    FileProblem
        Also if any value was changed.
    """
    value = read_json(path, dict, advice)
    if value.pop(CHECK, None) != _check_sum(value):
        raise FileProblem(f"{path} was changed after it was written; {advice}.")
    return validated(json.dumps(value), kind, f"{path} is damaged", advice)


def _check_sum(value: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"
