"""Ends of a command by a signal: Ctrl-C, a request to terminate, or a terminal that was closed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["asked_to_stop", "ended_by_signals"]

HANG_UP = getattr(signal, "SIGHUP", None)
"""What is sent when the terminal is closed, or the connection to it is lost; there is none on Windows."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have a request to terminate, and a closed terminal, end a command like Ctrl-C: what it was writing is removed.

    Yields
    ------
    None
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _handled({signal.SIGTERM: interrupt} | ({HANG_UP: interrupt} if HANG_UP else {})):
        yield


@contextmanager
def asked_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Have signals ask a run to stop; Ctrl-C, or a request to terminate, ends it at once the second time.

    A terminal that is closed sends its signal more than once, itself and by its shell, so that only asks.

    Parameters
    ----------
    stop : callable
        Asks the run.

    Yields
    ------
    None
    """
    asked = set[int]()

    def interrupt(number: int, _frame: object) -> None:
        if number != HANG_UP and asked - {HANG_UP}:
            raise KeyboardInterrupt
        asked.add(number)
        stop()

    numbers = (signal.SIGTERM, signal.SIGINT, *([HANG_UP] if HANG_UP else []))
    with _handled(dict.fromkeys(numbers, interrupt)):
        yield


@contextmanager
def _handled(handlers: dict[Any, Callable[[int, Any], None]]) -> Iterator[None]:
    """Handle signals until the block ends; what is ignored, as by nohup, stays ignored, and other threads get none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminals = [stream.fileno() for stream in (sys.stdout, sys.stderr) if stream is not None and stream.isatty()]

    def handled(number: int, frame: object) -> None:
        if number == HANG_UP:
            _leave_closed(terminals)
        handlers[number](number, frame)

    taken = [number for number in handlers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handled) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_closed(terminals: list[int]) -> None:
    """Write no more to terminals that are closed, which would be an error each time."""
    for descriptor in terminals:
        if not os.isatty(descriptor):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, descriptor)
            os.close(nothing)
