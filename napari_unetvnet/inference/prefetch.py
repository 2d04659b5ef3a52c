"""Compute the next item in a thread while the present one is used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

__all__ = ["prefetch"]

Argument = TypeVar("Argument")
Item = TypeVar("Item")


def prefetch(compute: Callable[[Argument], Item], arguments: Sequence[Argument]) -> Generator[Item]:
    """Compute items in order, each while the one before is used.

    One thread computes them, at most one ahead. An error in it is raised where its item is requested. Closing the
    generator waits for the item in progress and ends the thread.

    Parameters
    ----------
    arguments : sequence
        One for each call; for a single one no thread is started.

    Yields
    ------
    The result of each call.
    """
    if len(arguments) < 2:
        yield from map(compute, arguments)
        return
    with ThreadPoolExecutor(1, "prefetch") as thread:
        pending = thread.submit(compute, arguments[0])
        for argument in arguments[1:]:
            item = pending.result()
            pending = thread.submit(compute, argument)
            yield item
            del item  # it may be large, and the next one is already in memory
        yield pending.result()
