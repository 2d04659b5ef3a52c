"""Set how the threads of torch wait for each other, before torch is imported, which reads these settings once."""

from __future__ import annotations

import os

__all__ = ["wait_briefly"]

SPINS = 1000
"""Spins before a thread sleeps: about 20 to 50 microseconds, the time between small operations."""


def wait_briefly() -> None:
    """Let idle threads spin briefly, then sleep; settings of the user are kept.

    Threads that spin for long, which is the default, make a tile take 1.6 times as long as with one thread if another
    program needs a core. Threads that sleep at once take longer to wake up than many operations of a network last
    (``benchmarks/threads.md``).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)  # for the OpenMP of torch on Linux; others ignore it
