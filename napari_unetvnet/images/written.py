"""What this program wrote, so that nothing else is replaced: a record of each result, and a lock while it is made.

A record lies in the user's cache and not beside the result or in it: it needs no place in any format, and a result is
the same bytes with and without it. It holds the path of a result, and the size and time of each of its files. A result
whose files still have these may be replaced; one that someone has changed, or put there, may not. The record is written
before the result is renamed to its place, so that a run that is killed in between can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import cache_folder, named, put_in_place
from napari_unetvnet.images.same_file import one_name
from napari_unetvnet.json_files import read_json
from napari_unetvnet.temporary import beside, remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["claimed", "deliver", "delivering", "is_unchanged", "records_folder", "refuse_foreign", "target"]


@dataclass(frozen=True)
class _Record:
    path: str
    states: tuple[str, ...]


def records_folder() -> Path:
    """Return the folder of the records; if it is emptied, a result is not replaced until someone says so."""
    return cache_folder() / "written"


def target(path: Path) -> Path:
    """Give the path that is written: of a link what it points to, so that the link stays."""
    return Path(os.path.realpath(path))


@contextmanager
def delivering(*paths: Path) -> Iterator[list[Path]]:
    """Give temporary places for results that belong together, which replace those at the paths when the block ends.

    Yields
    ------
    list of Path
        As of `files.replacing_all`, beside what links point to.
    """
    parts = [beside(target(path)) for path in paths]
    try:
        with named(parts, paths):
            yield parts
        deliver(parts, paths)
    finally:
        for part in parts:
            remove(part)


def deliver(parts: Sequence[Path], paths: Sequence[Path]) -> None:
    """Rename results that are complete to their places, and record that they were written here.

    Parameters
    ----------
    parts : sequence of Path
        In the folders of the targets of ``paths``.
    """
    places = [target(path) for path in paths]
    for part, place in zip(parts, places, strict=True):
        _record(part, place)
    put_in_place(parts, places)


def refuse_foreign(paths: Iterable[Path], *, overwrite: bool = False) -> None:
    """Refuse to replace what this program did not write, or what was changed since.

    Parameters
    ----------
    overwrite : bool
        Whether a person wants it to be replaced.

    Raises
    ------
    FileProblem
    """
    for path in paths:
        if overwrite or not os.path.lexists(target(path)) or is_unchanged(path):
            continue
        reason = "was changed since this program wrote it" if _states(path) else "was not written by this program"
        raise FileProblem(f"{path} exists and {reason}; give another output, or add --overwrite to replace it.")


def is_unchanged(path: Path) -> bool:
    """Whether a file or folder is as this program wrote it; so is an empty folder."""
    place = target(path)
    if place.is_dir() and not any(place.iterdir()):
        return True
    return place.exists() and _state(place) in _states(path)


@contextmanager
def claimed(paths: Iterable[Path], *, shared: str = "") -> Iterator[str]:
    """Keep other runs from writing to the same places until the block ends.

    Parameters
    ----------
    paths : iterable of Path
    shared : str
        What becomes of the results of two runs that may write to one place, as a sentence; without it the second one
        is refused.

    Yields
    ------
    str
        A sentence if another run writes there, too, or results cannot be recorded on this computer; else empty.

    Raises
    ------
    FileProblem
        If another run writes to one of them, and the place is not shared.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as locks:
        folder, text = records_folder(), ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(set(paths)):
                try:
                    locks.enter_context(FileLock(_file(path).with_suffix(".lock"), timeout=0))
                except Timeout:
                    if shared:
                        text = f"Another run is writing {path}, too. {shared}"
                        continue
                    raise FileProblem(
                        f"Another run is writing {path}; wait until it ends, or give another output."
                    ) from None
        except OSError as error:
            reason = error.strerror or error
            text = f"Results cannot be recorded in {folder} ({reason}); to replace them later, add --overwrite."
        yield text


def _file(path: Path) -> Path:
    """Give the record of a path, however it is spelled."""
    return records_folder() / f"{hashlib.sha256(os.fsencode(one_name(path))).hexdigest()[:32]}.json"


def _record(part: Path, place: Path) -> None:
    """Record a result before it is renamed; that of an earlier run stays recorded until then."""
    states = [_state(part), *([_state(place)] if is_unchanged(place) else [])]
    record, text = _file(place), json.dumps({"path": str(place), "states": states})
    temporary = beside(record)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(record)
    except OSError:  # `claimed` has told it, and the result is worth more than its record
        with suppress(OSError):
            remove(temporary)


def _states(path: Path) -> tuple[str, ...]:
    """Give the states in which this program wrote a path; none without a record that can be read."""
    try:
        return read_json(_file(path), _Record, "it is written anew").states
    except FileProblem:  # there is none, or it is damaged: what was written is taken for someone else's then
        return ()


def _state(place: Path) -> str:
    """Digest the names, sizes and times of the files of a result."""
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    facts = [(str(path.relative_to(place)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()
