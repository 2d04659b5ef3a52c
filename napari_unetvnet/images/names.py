"""The names of files without what only says that they are an image, labels, or one channel.

A name is read in several forms, from the strictest to the loosest, so that "a_raw_labels" belongs to "a_raw" and not to
"a" where there are both.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import takewhile
from typing import TYPE_CHECKING

from napari_unetvnet.images.sources import paths_of, stem_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Words", "channel_of", "has_label_word", "image_forms", "label_forms",
    "of_other_modality", "of_second_observer", "split_words",
]  # fmt: skip

OF_LABELS = (
    r"labels?(?:tr)?|lbls?|masks?|d?segs?|segm|segmented|segmentations?|gt|truth|pred(?:ictions?)?|results?|annot(?:ation)?s?|"
    r"objects?|instances?|manual\d*|targets?|\d(?:st|nd|rd)ho"
)
OF_IMAGES = r"images?|imgs?|im|imaging|raw|vol(?:umes?)?|scans?|input"
OF_SPLITS = r"training|train|testing|test|validation|val"
MODALITIES = r"t1|t1w|t1ce|t1c|t1n|t1gd|t1post|t2|t2w|t2f|t2s|t2star|flair|pd|pdw|adc|dwi|swi|ct|cta|pet|mr|mri"
CHANNEL = re.compile(rf"(?P<name>.+?)[ _.-](?P<channel>\d{{4}}|c(?:h|hannel)?\d+|{MODALITIES})", re.IGNORECASE)
LOOSE = re.compile(rf"{OF_SPLITS}|{MODALITIES}")
MODALITY = re.compile(MODALITIES)
PHRASES = (
    (re.compile(r"cp[ _-]masks?"), "masks"),
    (re.compile(r"gold[ _-]?standard"), "truth"),
    (re.compile(r"ground[ _-]?truth"), "truth"),
    (re.compile(r"1st[ _-](?:ho|manual)"), "manual"),
)
"""Words that only together say what a file is."""

SECOND = re.compile(r"2nd[ _-]?(ho|manual|observer)|manual2|(observer|rater|annotator)[ _-]?2", re.IGNORECASE)

Words = tuple[str, ...]


def has_label_word(name: str) -> bool:
    """Whether a name says that the file holds labels."""
    words = _words(name)
    return _without(words, OF_LABELS) != words


def of_second_observer(name: str) -> bool:
    """Whether labels are those of a second observer, which measure how far two people agree."""
    return SECOND.search(name) is not None


def image_forms(source: str) -> list[set[Words]]:
    """Read the name of an image, from the strictest form to the loosest.

    Parameters
    ----------
    source : str
        One file, or the channel files separated by ``|``, each of which names the image, as does what they share.

    Returns
    -------
    list of set of tuple of str
        For each form, the names.
    """
    stems = [stem_of(path) for path in paths_of(source)]
    read = [_words(stem) for stem in stems]
    shared = {_shared(read)} if len(read) > 1 else {_without_channel(stems[0])}
    plain = {_without(words, OF_LABELS, OF_IMAGES) for words in {*read, *shared}}
    return _forms(stems, set(read), plain)


def label_forms(source: str) -> list[set[Words]]:
    """Read the name of labels, from the strictest form to the loosest.

    Parameters
    ----------
    source : str
        One file, or several masks separated by ``|``.

    Returns
    -------
    list of set of tuple of str
        For each form, the names.
    """
    stems = [stem_of(path) for path in paths_of(source)]
    read = {_words(stem) for stem in stems}
    named = {_without(words, OF_LABELS) for words in read}
    return _forms(stems, named, {_without(words, OF_LABELS, OF_IMAGES) for words in read})


def of_other_modality(image: str, labels: str) -> bool:
    """Whether the names of an image and of labels say different modalities, or time points, as t1 and t2 may be."""
    image_words, label_words = (
        {word for path in paths_of(source) for word in _words(stem_of(path)) if MODALITY.fullmatch(word)}
        for source in (image, labels)
    )
    return bool(image_words and label_words) and not image_words & label_words


def channel_of(stem: str) -> tuple[str, str] | None:
    """Split the name of a channel file.

    Returns
    -------
    tuple of (str, str), or None
        Name of the image and of the channel, as of "case_0001" or "p1-t1c"; None if it does not name a channel.
    """
    match = CHANNEL.fullmatch(stem)
    return (match["name"], match["channel"]) if match else None


def split_words(name: str) -> Words:
    """Split a name into words where it has spaces or punctuation."""
    return tuple(word for word in re.split(r"[\s_.,;()+-]+", name) if word)


def _words(name: str) -> Words:
    """Split a name into words, in lower case."""
    name = unicodedata.normalize("NFC", name).casefold()  # macOS writes ü as two letters
    for phrase, word in PHRASES:
        name = phrase.sub(word, name)
    return split_words(name)


def _forms(stems: Sequence[str], named: set[Words], plain: set[Words]) -> list[set[Words]]:
    """Put the forms of a name in order: as it is, in lower case, of its own kind, without words, without modality."""
    loose = {tuple(map(_number, _loosely(words))) for words in plain}
    return [{(stem,) for stem in stems}, {_words(stem) for stem in stems}, named, plain, loose]


def _shared(names: Sequence[Words]) -> Words:
    """Give the first words that all names have in common."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    return tuple(column[0] for column in alike)


def _without_channel(stem: str) -> Words:
    """Leave out the number of the first of several channels, which is that of the only one."""
    split = channel_of(stem)
    return _words(split[0] if split and split[1] == "0000" else stem)


def _without(words: Words, *kinds: str) -> Words:
    """Leave out words of these kinds, also where a number follows or precedes them, as in "mask1"."""
    kind = "|".join(kinds)
    pattern = re.compile(rf"(?P<before>\d*)(?:{kind})(?P<after>(?:\d\w*)?)")
    matches = [pattern.fullmatch(word) for word in words]
    left = (match["before"] + match["after"] if match else word for word, match in zip(words, matches, strict=True))
    return tuple(word for word in left if word)


def _loosely(words: Words) -> Words:
    """Leave out words of a split or a modality, unless there is nothing else."""
    return tuple(word for word in words if not LOOSE.fullmatch(word)) or words


def _number(word: str) -> str:
    """Leave out leading zeros."""
    return str(int(word)) if word.isdecimal() else word
