"""Finish each item in a thread while the next one is computed: the counterpart of `prefetch`."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["finish_in_background"]

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = 0.05
"""How long to wait for a result, to yield it at once, as a fraction of the time that its item took."""


def finish_in_background(finish: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Finish items in order, each while the next one is computed.

    One thread finishes them, at most one at a time. An error in it is raised here, before the next item is handed over.
    If computing an item fails, the item before is finished and its result yielded first. Closing the generator waits
    for the item in progress and ends the thread.

    Yields
    ------
    The result of each item.
    """
    pending: Future[Result] | None = None
    with ThreadPoolExecutor(1, "finish") as thread:
        began = time.monotonic()
        try:
            for item in items:
                seconds = time.monotonic() - began
                results = [pending.result()] if pending else []
                pending = thread.submit(finish, item)
                del item  # it may be large
                yield from results
                if wait([pending], PATIENCE * seconds).done:
                    result, pending = pending.result(), None
                    yield result
                began = time.monotonic()
        except Exception:
            if pending is not None and pending.exception() is None:
                yield pending.result()
            raise
        if pending is not None:
            yield pending.result()
