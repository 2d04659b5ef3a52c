"""Finish each thing in a thread while the next one is made: the counterpart of `ahead`."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["behind"]

Made = TypeVar("Made")
Done = TypeVar("Done")

PATIENCE = 0.05
"""Such a share of the time that a thing took to be made may be waited for it to be finished, to tell of it at once."""


def behind(finish: Callable[[Made], Done], things: Iterable[Made]) -> Generator[Done]:
    """Finish things in order, each while the next one is made.

    One thread finishes them, and never is more than one left to it. What goes wrong in it is raised here, before the
    next thing is handed over; where making things goes wrong, what was made before is finished and told first. Closing
    the generator waits for the thing that is just being finished, and ends the thread.

    Parameters
    ----------
    finish : callable
    things : iterable

    Yields
    ------
    What it gives, when it is finished.
    """
    pending: Future[Done] | None = None
    with ThreadPoolExecutor(1, "behind") as thread:
        begun = time.monotonic()
        try:
            for thing in things:
                took = time.monotonic() - begun
                before = [pending.result()] if pending else []
                pending = thread.submit(finish, thing)
                del thing  # it may be large
                yield from before
                if wait([pending], PATIENCE * took).done:
                    done, pending = pending.result(), None
                    yield done
                begun = time.monotonic()
        except Exception:
            if pending is not None and pending.exception() is None:
                yield pending.result()
            raise
        if pending is not None:
            yield pending.result()
