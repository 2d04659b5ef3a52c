"""Where a result is that grows beside its output, until it is renamed.

``results.json`` holds no path but a tag for each of these results, which is a part of the name that they have in the
folder of their output. A run folder may come from someone else: what its files say must not decide what is removed or
written to. So what has that name is checked, too, before it is used.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from napari_unetvnet.errors import FileProblem, UserError
from napari_unetvnet.images.written import target
from napari_unetvnet.json_files import read_json, write_json
from napari_unetvnet.runs.folder import CLEANED, LABELS, PLACES, read
from napari_unetvnet.temporary import beside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unetvnet.settings import Job

__all__ = ["DELIVERED", "Tags", "check_own", "growing", "labels_in", "load_tags", "new_tag", "save_tags", "unfinished"]

DELIVERED = "delivered"
"""Instead of a tag: the result has been renamed to its output."""
TAG_BYTES = 16
Tags = dict[str, Annotated[str, Field(pattern=rf"^([0-9a-f]{{{2 * TAG_BYTES}}}|{DELIVERED})$")]]
"""Of each result by its kind, such as labels."""
ADVICE = "start a new run, and remove the folders part-... beside the results"
WRITTEN = re.compile(r"zarr\.json|\d+|.+\.partial")
"""Names of the files in a growing zarr folder: metadata, chunks, and what a killed process was just writing."""


def new_tag() -> str:
    """Make a tag that no other run has."""
    return secrets.token_hex(TAG_BYTES)


def growing(output: Path, tag: str) -> Path:
    """Return the folder of a result that grows beside its output; `DELIVERED` stands for the output itself."""
    return output if tag == DELIVERED else beside(target(output), "part-", tag)


def save_tags(folder: Path, tags: Mapping[str, str]) -> None:
    """Save the tags of the results that lie outside the run folder."""
    if not tags:
        (folder / PLACES).unlink(missing_ok=True)
        return
    write_json(folder / PLACES, dict(tags))


def load_tags(folder: Path) -> dict[str, str]:
    """Load what `save_tags` saved.

    Returns
    -------
    dict of str to str
        Empty if all results are in the run folder.

    Raises
    ------
    FileProblem
        If the file is damaged.
    """
    return read_json(folder / PLACES, Tags, ADVICE) if os.path.lexists(folder / PLACES) else {}


def unfinished(folder: Path) -> list[Path]:
    """List the results of a run that began to grow beside their outputs and are not renamed yet.

    Returns
    -------
    list of Path
        Empty of a run whose files cannot be read.
    """
    try:
        tags, job = load_tags(folder), read(folder)
    except UserError:
        return []
    outputs = {kind: getattr(job, "output" if kind == "labels" else kind, None) for kind in tags}
    places = [growing(output, tags[kind]) for kind, output in outputs.items() if output and tags[kind] != DELIVERED]
    return [place for place in places if place.exists()]


def labels_in(folder: Path, job: Job | None = None) -> Path:
    """Return the path of the labels of a run (file or zarr folder): the cleaned ones if they exist.

    Parameters
    ----------
    job : Job, optional
        That of the run; read from its folder if it is not given.

    Returns
    -------
    Path
    """
    if (folder / CLEANED).exists():
        return folder / CLEANED
    tag = load_tags(folder).get("labels")
    output = None if tag is None else (job or read(folder)).output
    return folder / LABELS if tag is None or output is None else growing(output, tag)


def check_own(place: Path) -> None:
    """Refuse to use what has the name of a growing result, but is none.

    Parameters
    ----------
    place : Path
        From `growing`; nothing need be there.

    Raises
    ------
    FileProblem
        If it is a link or a file, or holds anything but the files of a zarr folder.
    """
    if not os.path.lexists(place):
        return
    if (stranger := _stranger(place)) is not None:
        raise FileProblem(
            f"{stranger} lies where a result of this run should grow, and was not written by it; move it away, or "
            "start a new run."
        )


def _stranger(place: Path) -> Path | None:
    """Find what no run has written: anything but folders and the files of a zarr folder, and all links."""
    if place.is_symlink() or not place.is_dir():
        return place
    for root, folders, files in os.walk(place):
        for name in folders + files:
            path = Path(root, name)
            if path.is_symlink() or (name in files and not WRITTEN.fullmatch(name)):
                return path
    return None
