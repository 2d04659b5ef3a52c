"""The channels of an image by their names: which is which, in whatever order they are given."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.images import image_file
from napari_unetvnet.images.arrays import Stack, View, cut
from napari_unetvnet.images.names import split_words
from napari_unetvnet.images.sources import paths_of, stem_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.volume import Volume

__all__ = ["arranged", "distinct_names", "match_channels", "names_in", "stacked"]


def names_in(source: str) -> tuple[str, ...]:
    """Give the names of the channel files of an image, without ending."""
    return tuple(stem_of(path) for path in paths_of(source))


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Leave out the words that all names begin or end with: "T1" and "FLAIR" of "p1_T1" and "p1_FLAIR".

    Returns
    -------
    tuple of str
        Empty if a name has no words of its own, as of "a" and "a_1", or there is a single name.
    """
    rows = [split_words(name) for name in names]
    first = _alike(rows)
    last = _alike([row[first:][::-1] for row in rows])
    own = tuple(" ".join(row[first : len(row) - last]) for row in rows)
    distinct = len(names) > 1 and all(own) and len({name.casefold() for name in own}) == len(own)
    return own if distinct else ()


def match_channels(given: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """Find the channels of a model among those that are given.

    A channel is found by its whole name, or as the last words of a name, or as any words of it; numbers such
    as "0001" of nnU-Net count the wanted channels.

    Parameters
    ----------
    given : sequence of str
        Names of files or layers.
    wanted : sequence of str
        Names of the channels of a model.

    Returns
    -------
    list of int or None
        For each wanted channel its index among the given ones; None if none, or more than one, has its name.
    """
    own = distinct_names(given) or tuple(given)
    last = [split_words(name)[-1:] for name in given]
    if all(len(words[0]) == 4 and words[0].isdecimal() for words in last if words) and not set(wanted) & set(own):
        numbers = {int(words[0]): i for i, words in enumerate(last) if words}
        return [numbers.get(i) for i in range(len(wanted))]
    places: list[int | None] = [None] * len(wanted)
    for fits in (_equal, _ends, _holds):
        for i, name in enumerate(wanted):
            words = _folded(name)
            free = [k for k in range(len(given)) if k not in places]
            found = [k for k in free if fits(_folded(own[k]), words) or fits(_folded(given[k]), words)]
            if places[i] is None and len(found) == 1:
                places[i] = found[0]
    return places


def arranged(volume: Volume, places: Sequence[int | None], fill: Sequence[float]) -> Volume:
    """Put the channels of a volume in another order, and fill those that are missing.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
    places : sequence of int or None
        For each new channel the old one, or None if it is missing.
    fill : sequence of float
        For each new channel the value of all its voxels if it is missing.

    Returns
    -------
    Volume, data of shape (len(places), Z, Y, X)
        Nothing is read if it is large.
    """
    whole = (slice(None),) * 3
    dtype = volume.data.dtype if None not in places else np.result_type(volume.data.dtype, np.float32)
    channels = [
        np.broadcast_to(np.array(value, dtype), (1, *volume.shape))
        if k is None
        else cut(volume.data, (slice(k, k + 1), *whole))
        for k, value in zip(places, fill, strict=True)
    ]
    return replace(volume, data=stacked(channels), channel_names=())


def stacked(arrays: Sequence[Any]) -> Any:
    """Stack the channels of several arrays: in memory if they are small, else as a view that reads what is sliced."""
    stack = Stack(arrays)
    small = math.prod(stack.shape) * stack.dtype.itemsize <= image_file.LARGE_BYTES
    return np.asarray(stack) if small else View(stack)


def _alike(rows: Sequence[Sequence[str]]) -> int:
    """Count the first words that all rows have in common."""
    count = 0
    for column in zip(*rows, strict=False):
        if len({word.casefold() for word in column}) > 1:
            break
        count += 1
    return count


def _folded(name: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in split_words(name))


def _equal(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return words == wanted


def _ends(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return bool(wanted) and words[-len(wanted) :] == wanted


def _holds(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    n = len(wanted)
    return any(words[i : i + n] == wanted for i in range(len(words) - n + 1) if n)
