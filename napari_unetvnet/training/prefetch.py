"""Draws the next batch in a thread while the network trains on the present one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.patches import Batch

__all__ = ["Prefetcher"]


class Prefetcher:
    """Batches by step and patch size, one of them drawn ahead.

    Parameters
    ----------
    draw : callable
        Gives the batch of a step and a patch size; a pure function.
    """

    def __init__(self, draw: Callable[[int, Triple], Batch]) -> None:
        self._draw = draw
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="napari-unetvnet-batch")
        self._next: tuple[tuple[int, Triple], Future[Batch]] | None = None

    def take(self, step: int, patch: Triple) -> Batch:
        """Give a batch and start drawing that of the next step.

        Parameters
        ----------
        patch : tuple of 3 int

        Returns
        -------
        Batch
        """
        ahead = self._next
        batch = ahead[1].result() if ahead and ahead[0] == (step, patch) else self._draw(step, patch)
        self._next = ((step + 1, patch), self._pool.submit(self._draw, step + 1, patch))
        return batch

    def close(self) -> None:
        """Stop drawing."""
        self._pool.shutdown(wait=True, cancel_futures=True)
