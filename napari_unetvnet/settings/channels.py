"""The names of the channels of images."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["ChannelNames"]


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError(f"Two of the channel names {', '.join(names)} are the same; make them unique.")
    return names


ChannelNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_unique)]
"""The type of a setting that names channels."""
