"""The command that lists models, for an image the best first."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.ranking import Fit

__all__ = ["print_models"]


def print_models(parsed: Namespace) -> None:
    """Print the models: name, what each is for, dimensions, channels, voxel size, score and licence.

    Parameters
    ----------
    parsed : Namespace
        ``image`` is a file or None, ``json`` whether to print JSON.

    Raises
    ------
    FileProblem
        If the image cannot be read.
    DataProblem
        If it holds no image.
    """
    from napari_unetvnet.images.io import read_volume
    from napari_unetvnet.model.ranking import cards_of, facts_of, rank
    from napari_unetvnet.runs import models

    listed = models.list_models()
    for problem in cards_of(listed)[1].values():
        sys.stderr.write(problem + "\n")
    notices = list[str]()
    fits = rank(listed, facts_of(read_volume(parsed.image, notices=notices)) if parsed.image else None)
    sys.stderr.writelines(f"{text}\n" for text in notices)
    if parsed.json:
        sys.stdout.write(json.dumps([_row(each, judged=bool(parsed.image)) for each in fits], indent=2) + "\n")
        return
    sys.stdout.writelines(line + "\n" for line in _lines(fits, parsed.image or ""))


def _row(fit: Fit, *, judged: bool) -> dict[str, Any]:
    row = {"name": fit.name, "path": str(fit.path), "about": fit.about, **fit.card.model_dump(mode="json")}
    if judged:
        row |= {"fits": fit.fits, "misfits": list(fit.misfits), "remarks": list(fit.remarks)}
        row |= {"trained_on_it": fit.trained_on_it}
    return row


def _lines(fits: list[Fit], image: str) -> Iterable[str]:
    if not fits:
        yield "There are no models yet; train one with: napari-unetvnet train, or in the viewer."
    if not image:
        yield from (line for fit in fits for line in _described(fit))
        return
    good, bad = [fit for fit in fits if fit.fits], [fit for fit in fits if not fit.fits]
    if good:
        yield f"Models that fit {image}, the best first:"
        yield from (line for fit in good for line in _described(fit))
    if bad:
        yield f"{'Models that do not fit' if good else 'No model fits'} {image}:"
        yield from (line for fit in bad for line in _described(fit))


def _described(fit: Fit) -> Iterable[str]:
    yield f"{fit.name}: {fit.about}"
    yield f"    {', '.join(filter(None, _facts(fit.card)))}"
    said = [*fit.misfits, *fit.remarks, *(["It was trained on this image."] if fit.trained_on_it else [])]
    yield from (f"    {sentence}" for sentence in said)


def _facts(card: ModelCard) -> Iterable[str]:
    """Give the columns of the list."""
    edges = card.spacing[3 - card.dims :]
    unknown = card.unit == "pixel" and set(edges) == {1.0}
    yield f"{card.dims}D" + (f" with {card.context} plane(s) on each side" if card.view == "2.5d" else "")
    named = f" ({', '.join(card.channel_names)})" if card.channel_names else ""
    yield f"{card.channels} channel{'s' * (card.channels != 1)}{named}"
    yield "voxel size unknown" if unknown else f"voxels of {' x '.join(f'{edge:.3g}' for edge in edges)} {card.unit}"
    yield card.score or "no score"
    yield f"licence {card.licence}" if card.licence else ""
    yield card.network
