"""The command that lists models, for an image the best first, and its actions on one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unetvnet.cli.arguments import Formatter
from napari_unetvnet.cli.output import print_error, print_line

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable

    from napari_unetvnet.cli.arguments import Add, Parser
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.ranking import Fit

__all__ = ["add_models"]


def add_models(add: Add) -> None:
    """Add the command with its actions.

    Parameters
    ----------
    add : callable
        Adds a command, given its name, its function and its description.
    """
    command = add("models", print_models, "List the models that were trained here or shipped with the package.")
    command.add_argument("--json", action="store_true", help="Print JSON.")
    text = "Image file; models that fit it come first, and it is said what does not fit."
    command.add_argument("--for", dest="image", metavar="IMAGE", help=text)
    actions = command.add_subparsers(metavar="ACTION", title="actions")

    def action(name: str, function: Callable[[Namespace], None], text: str, *given: tuple[str, str]) -> Parser:
        added: Parser = actions.add_parser(
            name, help=text, description=text, formatter_class=Formatter, allow_abbrev=False
        )
        added.set_defaults(command=function)
        for argument, meaning in given:
            added.add_argument(argument, metavar=argument.upper(), help=meaning)
        return added

    model = ("model", "Name in the list.")
    action("rename", _rename, "Give a model, and its run, another name.", model, ("new", "The other name."))
    action("remove", _remove, "Remove a model that was trained or imported here.", model)
    text = "Copy a model to a file, and say its licence."
    exporting = action("export", _export, text, model, ("file", "File for the copy (.safetensors)."))
    text = "Replace also a file that this program did not write, or that was changed since."
    exporting.add_argument("--overwrite", action="store_true", help=text)
    text = "Check a model file, and copy it to the list."
    importing = action("import", _import, text, ("file", "Model file (.safetensors)."))
    importing.add_argument("--name", default="", help="Name in the list (default: that of the file).")
    action("path", _path, "Print the path of a model.", model)


def _rename(parsed: Namespace) -> None:
    from napari_unetvnet.runs.model_files import rename_model

    print_line(f"Model: {rename_model(parsed.model, parsed.new)}")


def _remove(parsed: Namespace) -> None:
    from napari_unetvnet.files import amount
    from napari_unetvnet.runs.model_files import remove_model

    left = remove_model(parsed.model)
    rest = f" The rest of its run takes {amount(left)}; to remove it: napari-unetvnet runs prune {parsed.model}"
    print_line(f"Removed {parsed.model}.{rest if left else ''}")


def _export(parsed: Namespace) -> None:
    from napari_unetvnet.runs.model_files import export_model

    card = export_model(parsed.model, Path(parsed.file), overwrite=parsed.overwrite)
    print_line(f"Model: {parsed.file}")
    print_line(f"Licence: {card.licence or 'none is stated; say under which one you pass it on'}")
    if card.attribution:
        print_line(f"To be named: {card.attribution}")


def _import(parsed: Namespace) -> None:
    from napari_unetvnet.runs.model_files import import_model

    model, card = import_model(Path(parsed.file), parsed.name)
    print_line(f"Model: {model.parent.name}, {model}")
    print_line(f"Licence: {card.licence or 'none is stated; ask whom you have it from'}")


def _path(parsed: Namespace) -> None:
    from napari_unetvnet.runs.models import find_model

    print_line(str(find_model(parsed.model)))


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
        print_error(problem)
    notices = list[str]()
    fits = rank(listed, facts_of(read_volume(parsed.image, notices=notices)) if parsed.image else None)
    for text in notices:
        print_error(text)
    if parsed.json:
        print_line(json.dumps([_row(each, judged=bool(parsed.image)) for each in fits], indent=2))
        return
    for line in _lines(fits, parsed.image or ""):
        print_line(line)


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
