"""The next batch, drawn in a thread while the present one is learnt from."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.patches import Batch

__all__ = ["Prefetcher"]


class Prefetcher:
    """Batches by the number of their step and the size of their patches, one drawn ahead.

    Parameters
    ----------
    draw : callable
        Gives the batch of a step and a patch; the same whenever it is asked.
    """

    def __init__(self, draw: Callable[[int, Triple], Batch]) -> None:
        self._draw = draw
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="napari-unetvnet-batch")
        self._next: tuple[tuple[int, Triple], Future[Batch]] | None = None

    def take(self, step: int, patch: Triple) -> Batch:
        """Give a batch and begin the one of the next step.

        Parameters
        ----------
        step : int
        patch : tuple of 3 int

        Returns
        -------
        Batch
        """
        known = self._next
        batch = known[1].result() if known and known[0] == (step, patch) else self._draw(step, patch)
        self._next = ((step + 1, patch), self._pool.submit(self._draw, step + 1, patch))
        return batch

    def close(self) -> None:
        """Draw no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
