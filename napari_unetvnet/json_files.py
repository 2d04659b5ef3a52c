"""JSON files of our own, read back by a schema: a sentence for what is damaged, never a traceback or another value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import check_regular, write_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_json", "validated", "write_json"]

T = TypeVar("T")


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
        return TypeAdapter(kind).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{where}: {first['msg']}" if where else first["msg"]
        raise FileProblem(f"{subject} ({message}); {advice}.") from error
