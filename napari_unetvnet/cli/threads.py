"""How the threads of torch wait for each other; what is set here is read when torch is first imported."""

from __future__ import annotations

import os

__all__ = ["wait_briefly"]

SPINS = 1000
"""How often a thread looks before it sleeps: for some 20 to 50 microseconds, as long as small steps are apart."""


def wait_briefly() -> None:
    """Let threads that have nothing to do spin for a moment, then sleep; what the user has set is kept.

    Threads that spin for long, as they do by default, make a tile take 1.6 times what one thread needs where another
    program wants a core. Threads that sleep at once take longer to wake than many steps of a network last
    (``benchmarks/threads.md``).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)  # of the OpenMP that torch brings on Linux; others do not read it
