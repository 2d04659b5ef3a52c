"""Show events in a terminal as a progress bar with loss, hold-out Dice and time left, or elsewhere as plain lines."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Self

from napari_unetvnet.errors import printable
from napari_unetvnet.events import EpochDone, Event, Notice, SlabDone, StartScored, StepDone

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Progress"]


class Progress:
    """Shows the events of one run.

    Parameters
    ----------
    stream : text stream
        A terminal shows a progress bar; other streams get one line per epoch.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._bar: tqdm[Any] | None = None
        self._dice = ""
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None and not self._closed:
            self._bar.close()

    def show(self, event: Event) -> None:
        """Show one event."""
        if self._closed:
            return
        try:
            self._show(event)
        except (OSError, ValueError):  # the terminal was closed, but the run continues
            self._closed = True

    def _show(self, event: Event) -> None:
        match event:
            case Notice(text=text):
                self._line(text)
            case StartScored():
                self._dice = f", hold-out Dice {event.dice:.3f}"
                self._line(f"start from {event.path} after {event.step} steps{self._dice}")
            case StepDone():
                fraction = event.seconds / max(event.seconds + event.seconds_left, 1e-9)
                remaining = _clock(event.seconds_left)
                self._advance(fraction, f"step {event.step}, loss {event.loss:.3f}{self._dice}, {remaining} left")
            case EpochDone():
                self._dice = "" if event.dice is None else f", hold-out Dice {event.dice:.3f}"
                if not self._stream.isatty():
                    remaining = _clock(event.seconds_left)
                    self._line(f"epoch {event.epoch}: loss {event.loss:.3f}{self._dice}, {remaining} left")
            case SlabDone():
                self._advance(event.stop / event.depth, f"plane {event.stop} of {event.depth}")

    def _advance(self, fraction: float, text: str) -> None:
        if not self._stream.isatty():
            return
        bar = self._bar = self._bar if self._bar is not None else self._new_bar()
        bar.n = round(min(fraction, 1.0), 4)
        bar.set_postfix_str(text, refresh=False)
        bar.refresh()

    def _new_bar(self) -> tqdm[Any]:
        from tqdm import tqdm

        form = "{percentage:3.0f} %|{bar:30}| {postfix}"
        return tqdm(total=1.0, file=self._stream, bar_format=form, leave=True)

    def _line(self, text: str) -> None:
        text = printable(text)
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()


def _clock(seconds: float) -> str:
    """Format a duration as minutes and seconds, such as 1:05."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
