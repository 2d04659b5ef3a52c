"""Bring the channels of images into one order by their names: those of a training, and those that a model expects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.channels import arranged, distinct_names, match_channels, names_in
from napari_unetvnet.images.pairs import names_of
from napari_unetvnet.images.sources import parts_of, paths_of
from napari_unetvnet.images.subjects import modalities_of
from napari_unetvnet.model.card import check_channels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import PairFiles
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.model.card import ModelCard

__all__ = ["ModelImage", "NamedFiles", "as_in_model", "given_names", "image_for", "in_one_order", "order_for"]

Places = list[int | None]


class NamedFiles(NamedTuple):
    """The files of a training, the names of their channels (none if they have none), and what is to be said of them."""

    files: list[PairFiles]
    names: tuple[str, ...]
    notices: list[str]


class ModelImage(NamedTuple):
    """An image with the channels that a model expects, the indices of those that are missing, and sentences on both."""

    volume: Volume
    missing: tuple[int, ...]
    notices: list[str]


def in_one_order(files: Sequence[PairFiles]) -> NamedFiles:
    """Name the channels of a training after the channel files of its first image, and bring all into that order."""
    names = distinct_names(names_in(files[0].image))
    if not names or not all(len(paths_of(pair.image)) == len(names) for pair in files):
        return NamedFiles(list(files), (), [])
    ordered = []
    for pair in files:
        places = match_channels(names_in(pair.image), names)
        if None in places:
            odd = f"{names_of(pair.image)} are not named like {names_of(files[0].image)}"
            return NamedFiles(list(files), (), [f"The channels have no names and are taken in their order: {odd}."])
        ordered.append(_reordered(pair, places))
    moved = [new for new, old in zip(ordered, files, strict=True) if new != old]
    text = f"The channels of {len(moved)} image(s) were put in the order {', '.join(names)}."
    return NamedFiles(ordered, names, [text] if moved else [])


def as_in_model(named: NamedFiles, wanted: Sequence[str]) -> NamedFiles:
    """Bring the channels of a training into the order of the model that it starts from."""
    places = match_channels(named.names, wanted) if len(named.names) == len(wanted) else []
    if not places or None in places or places == list(range(len(places))):
        return named
    text = f"The channels are in another order than those of the model to start from ({', '.join(wanted)})"
    if not all(len(paths_of(pair.image)) == len(wanted) for pair in named.files):
        return named._replace(
            notices=[*named.notices, f"{text}, and a file holds several of them; save them in its order."]
        )
    files = [_reordered(pair, places) for pair in named.files]
    return NamedFiles(files, tuple(wanted), [*named.notices, f"{text}, and were put in its order."])


def given_names(source: str, chosen: Sequence[str], channels: int, stored: Sequence[str] = ()) -> tuple[str, ...]:
    """Give the names of the channels of an image.

    Parameters
    ----------
    source : str
        Its file or channel files.
    chosen : sequence of str
        Names that a person has given, which come first.
    channels : int
        Number of channels of the image.
    stored : sequence of str
        Names that its file holds.

    Returns
    -------
    tuple of str
        Empty if a file holds several channels, does not name them, and no names were given.

    Raises
    ------
    DataProblem
        If the numbers differ.
    """
    if chosen and len(chosen) != channels:
        raise DataProblem(
            f"There are {len(chosen)} channel names ({', '.join(chosen)}), but {names_of(source)} has {channels} "
            "channel(s); give a name for each."
        )
    names = tuple(chosen) or modalities_of(source) or tuple(stored) or names_in(source)
    return names if len(names) == channels else ()


def order_for(card: ModelCard, names: Sequence[str]) -> tuple[Places, list[str]]:
    """Find the channels of a model among the given ones.

    Parameters
    ----------
    names : sequence of str
        Of the given channels.

    Returns
    -------
    places : list of int or None
        For each channel of the model the given one; None if it is missing, and the model can do without it.
    notices : list of str
        What is in another order, missing or left out.

    Raises
    ------
    DataProblem
        If a channel is missing that the model needs.
    """
    places, wanted = match_channels(names, card.channel_names), ", ".join(card.channel_names)
    missing = [name for name, place in zip(card.channel_names, places, strict=True) if place is None]
    extra = [name for i, name in enumerate(names) if i not in places]
    expects, rename = f"The model expects the channels {wanted}", "name the given ones in their order (--channel-names)"
    if len(missing) == len(places) == len(names):
        text = f"{expects}. None of {', '.join(names)} has such a name, so they were taken in this order; if it is "
        return list(range(len(names))), [f"{text}another, {rename}."]
    if missing and (extra or not card.channel_dropout):
        odd = f", and {', '.join(extra)} {'is' if len(extra) == 1 else 'are'} none of them" if extra else ""
        need = "" if extra else " The model was trained without --channel-dropout, so it needs all of them."
        raise DataProblem(f"{expects}; {', '.join(missing)} is missing{odd}: give it, or {rename}.{need}")
    found = [place for place in places if place is not None]
    notices = [f"The channels were put in the order of the model: {wanted}."] if found != sorted(found) else []
    notices += [f"{expects}; {', '.join(extra)} was left out."] if extra else []
    notices += [f"{expects}; {', '.join(missing)} is missing and taken as 0, as in its training."] if missing else []
    return places, notices


def image_for(card: ModelCard, volume: Volume, names: Sequence[str]) -> ModelImage:
    """Give an image with the channels of a model, in their order.

    Parameters
    ----------
    names : sequence of str
        Of the channels of the volume; empty if they have none.

    Returns
    -------
    ModelImage

    Raises
    ------
    DataProblem
        If a channel is missing that the model needs, or their number differs.
    """
    if not card.channel_names or not names or len(names) == card.channels == 1:
        check_channels(card, volume)
        return ModelImage(volume, (), [])
    places, notices = order_for(card, names)
    missing = tuple(i for i, place in enumerate(places) if place is None)
    if places == list(range(volume.channels)):
        return ModelImage(volume, missing, notices)
    return ModelImage(arranged(volume, places, _neutral(card)), missing, notices)


def _neutral(card: ModelCard) -> list[float]:
    """Give the value of each channel that the normalisation brings to 0."""
    window = tuple(low for low, _ in zip(card.normalise_window[::2], card.normalise_window[1::2], strict=True))
    constants = (window or card.normalise_mean) if card.normalise == "fixed" else ()
    return list(constants) if len(constants) == card.channels else [*(constants or (0.0,))[:1]] * card.channels


def _reordered(pair: PairFiles, places: Places) -> PairFiles:
    parts = parts_of(pair.image)
    return replace(pair, image="|".join(parts[i] for i in places if i is not None))
