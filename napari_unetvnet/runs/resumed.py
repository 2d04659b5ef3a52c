"""A run that is resumed: its inputs compared with those it was started with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_unetvnet.errors import RunProblem
from napari_unetvnet.model.provenance import Input

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["changed_labels", "original_order"]


def original_order(folder: Path, new: Sequence[Input], old: Sequence[Input]) -> list[int]:
    """Find the images that the run was started with, whatever their order and their files are now.

    Returns
    -------
    list of int
        For each image of the start its index among the new ones.

    Raises
    ------
    RunProblem
        If an image is missing, new, or has changed.
    """
    left, order, missing = list(range(len(new))), list[int](), list[Input]()
    for image in old:
        same = [i for i in left if _same(new[i]["image"], image["image"])]
        same.sort(key=lambda i: new[i]["label"]["hash"] != image["label"]["hash"])  # of twins that with the same labels
        if same:
            order.append(same[0])
            left.remove(same[0])
        else:
            missing.append(image)
    if missing or left:
        raise RunProblem(
            f"The run in {folder} cannot be resumed with other images: {_difference(missing, [new[i] for i in left])}. "
            f"Give it the same images again, in any order, or start a new training with --start-from "
            f"{folder / 'model.safetensors'}."
        )
    return order


def _same(new: dict[str, str], old: dict[str, str]) -> bool:
    """Whether two images are the same: by their files, or by their intensities."""
    return new["hash"] == old["hash"] or new.get("content") == old.get("content", "")


def _difference(missing: Sequence[Input], added: Sequence[Input]) -> str:
    """Name the images that are missing, new or changed."""
    before, now = (
        {Path(each["image"]["file"]).name: each["image"]["file"] for each in side} for side in (missing, added)
    )
    words = [f"{name} has changed" for name in before.keys() & now.keys()]
    words += [f"{name} is missing" for name in before.keys() - now.keys()]
    words += [f"{name} is new" for name in now.keys() - before.keys()]
    return ", ".join(sorted(words))


def changed_labels(new: Sequence[Input], old: Sequence[Input], step: int) -> list[str]:
    """Name the label and mask files whose content has changed.

    Parameters
    ----------
    new, old : sequence of dict
        In the same order.
    step : int
        Steps that were trained on the old ones.

    Returns
    -------
    list of str
        A notice, if there are any.
    """
    files = [
        (after.get(kind) or before[kind])["file"]
        for after, before in zip(new, old, strict=True)
        for kind in ("label", "mask")
        if (kind in after or kind in before) and after.get(kind, {}).get("hash") != before.get(kind, {}).get("hash")
    ]
    if not files:
        return []
    return [
        f"Changed since step {step}: {', '.join(files)}. The next steps learn from what is there now; the hold-out "
        "stays where it was."
    ]
