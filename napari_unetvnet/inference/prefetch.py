"""Make the next thing in a thread while the present one is worked on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

__all__ = ["ahead"]

Number = TypeVar("Number")
Made = TypeVar("Made")


def ahead(make: Callable[[Number], Made], numbers: Sequence[Number]) -> Generator[Made]:
    """Make things in order, each while the one before is worked on.

    One thread makes them, and never more than one ahead. What goes wrong in it is raised where the thing is asked for;
    closing the generator waits for the thing that is just being made, and ends the thread.

    Parameters
    ----------
    make : callable
    numbers : sequence
        What to call it with; for a single one no thread is started.

    Yields
    ------
    What it gives.
    """
    if len(numbers) < 2:
        yield from map(make, numbers)
        return
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(make, numbers[0])
        for number in numbers[1:]:
            made = coming.result()
            coming = thread.submit(make, number)
            yield made
            del made  # it may be large, and the next one is there already
        yield coming.result()
