"""weights/README.md: what each shipped model is for, what it may be used for, its scores, and how it was made."""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import TYPE_CHECKING, Any

from weights_table import MODELS

from napari_unetvnet.model.card import ModelCard, read_card

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["readme", "write_readme"]

HEAD = """# Weights

Trained models that come with the plugin: one `.safetensors` file each, with its card in the header.
`napari-unetvnet models` lists them, and `--model NAME` takes them by name. They are starting points: where your images
look different, train on with a few labels of your own (`--start-from`).

This page is written by `scripts/make_weights.py`, from the cards and from `trainings.json`. All scores are means over
images that were not trained on. The same images chose the best epoch, so expect a little less on new ones. Curves
are of tiles cut out of them, of which a network sees less, so they lie below the scores.
"""
LICENCES = """## Licences

The weights have the licence of the images that they were trained on, not that of the program. Where you pass on a file,
or a model that you trained from it, name the authors under *attribution*, say that the weights were derived from their
images, and link the licence: [CC BY 3.0](https://creativecommons.org/licenses/by/3.0/),
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/),
[CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/),
[CC0 1.0](https://creativecommons.org/publicdomain/zero/1.0/), [MIT](https://opensource.org/license/mit).
CC0 asks for nothing. MIT asks to keep the copyright notice. CC BY asks for the names. CC BY-SA also asks that what is
made from the file be passed on under CC BY-SA 4.0. The card of a file holds its licence and the names, too.
"""


def write_readme(folder: Path) -> None:
    """Write README.md into the folder of the models."""
    (folder / "README.md").write_text(readme(folder))


def readme(folder: Path) -> str:
    """Describe the models of a folder.

    Returns
    -------
    str
        Markdown.
    """
    paths = sorted(folder.glob("*.safetensors"))
    cards = {path.stem: read_card(path) for path in paths}
    records = json.loads((folder / "trainings.json").read_text()) if paths else {}
    rows = [_row(path, cards[path.stem]) for path in paths]
    table = ["| model | task | image | licence | score | size | sha256 |", "|---|---|---|---|---|---|---|", *rows]
    sections = [_section(name, card, records[name]) for name, card in cards.items()]
    return "\n".join([HEAD, *table, "", LICENCES, *sections])


def _row(path: Path, card: ModelCard) -> str:
    channels = f"{card.channels} channel{'s' * (card.channels > 1)}"
    cells = [
        f"[`{path.stem}`](#{path.stem})",
        card.task,
        f"{card.view}, {channels}",
        card.licence,
        scores_in_words(card),
        f"{path.stat().st_size / 1e6:.1f} MB",
        f"`{hashlib.sha256(path.read_bytes()).hexdigest()}`",
    ]
    return f"| {' | '.join(cells)} |"


def scores_in_words(card: ModelCard) -> str:
    """Name the scores of the validation part.

    Returns
    -------
    str
    """
    names = dict(zip(map(str, card.values), card.class_names, strict=True)) if card.class_names else {}
    words = []
    for key, value in card.scores.items():
        if key.startswith("val_"):
            kind, _, number = key.removeprefix("val_").replace("object_f1", "object F1").partition("dice_")
            words.append(f"{names.get(number, number) or kind.replace('_', ' ')} {value:.3f}")
    return ", ".join(words).replace("dice", "Dice")


def _section(name: str, card: ModelCard, record: dict[str, Any]) -> str:
    """Describe a model."""
    recipe = MODELS[name]
    parts = ", ".join(f"{value} {word}" for value, word in card.names_by_value)
    options = "".join(f" {option}" for option in record["segment"])
    curve = ", ".join(f"{dice:.3f}" for _, dice in record["curve"])
    lines = [
        f"- data: {card.data}",
        f"- attribution: {card.attribution}",
        f"- licence of the weights: {card.licence}",
        f"- pixel size: {recipe.grid}",
        f"- classes: {parts}",
        f"- network: `{card.network}`, {json.dumps(card.option)}",
        f"- scores: {scores_in_words(card)}",
        f"- use: `napari-unetvnet segment IMAGE --model {name} --output LABELS{options}`",
        f"- trained by: `napari-unetvnet train --pairs PAIRS {shlex.join(record['train'])}`, "
        f"{record['cpu_minutes']:g} minutes of one CPU core "
        f"(`python scripts/make_weights.py --data FOLDER --only {name}`)",
        f"- curve: Dice of tiles of the hold-out after each tenth of {record['curve'][-1][0]} steps: {curve}",
        *(f"- note: {note}" for note in recipe.notes),
    ]
    return "\n".join([f"## {name}", "", f"Finds {card.task}.", "", *lines, ""])
