"""The progress of a run: status, progress bar, numbers, curves and notices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QProgressBar, QSizePolicy, QVBoxLayout, QWidget

from napari_unetvnet.errors import printable
from napari_unetvnet.events import CheckpointSaved, EpochDone, Notice, SlabDone, StartScored, StepDone
from napari_unetvnet.widgets.auto import reasons

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.events import Event
    from napari_unetvnet.widgets.auto import Planned

__all__ = ["Curves", "RunView"]

MOST_POINTS = 1000
MOST_NOTICES = 4
BAR = 1000
LOSS_COLOUR, DICE_COLOUR, AXIS_COLOUR = "#e8a33d", "#4fb0c6", "#8a8d93"
ERROR_STYLE = "QLabel { background: rgba(210, 50, 50, 55); border-left: 3px solid #d9534f; padding: 6px; }"


class RunView(QWidget):  # type: ignore[misc]
    """Shows the events of a run.

    Parameters
    ----------
    curves : bool
        Whether to draw loss and Dice.
    """

    def __init__(self, *, curves: bool) -> None:
        super().__init__()
        self.status, self.numbers, self.notices, self.error = _text(), _text(), _text(), _text()
        self.plan = _text()
        self.error.setStyleSheet(ERROR_STYLE)
        self.bar = QProgressBar()
        self.bar.setRange(0, BAR)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.curves = Curves() if curves else None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for part in (self.error, self.status, self.bar, self.numbers, self.curves, self.plan, self.notices):
            if part is not None:
                layout.addWidget(part)
        self._texts: list[str] = []
        self._dice: float | None = None
        self._best: float | None = None
        for part in (self.error, self.numbers, self.plan, self.notices, self.bar, self.curves):
            if part is not None:
                part.hide()

    def clear(self) -> None:
        """Reset for a new run."""
        self._texts, self._dice, self._best = [], None, None
        for label in (self.numbers, self.plan, self.notices, self.error):
            label.clear()
            label.hide()
        self.bar.setRange(0, BAR)
        self.bar.setValue(0)
        if self.curves is not None:
            self.curves.clear()

    def set_status(self, text: str) -> None:
        """Set the status text."""
        self.status.setText(printable(text))

    def show_error(self, lines: Sequence[str]) -> None:
        """Show error messages; hide the field if there are none."""
        self.error.setText(printable("\n".join(lines)))
        self.error.setVisible(bool(lines))

    def show_busy(self, *, visible: bool) -> None:
        """Show the progress bar in its indeterminate state, or hide it."""
        self.bar.setVisible(visible)
        self.bar.setRange(0, 0 if visible else BAR)

    def show_event(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Notice):
            self._texts = [*self._texts, event.text][-MOST_NOTICES:]
            self._put(self.notices, "\n".join(self._texts))
        elif isinstance(event, StepDone):
            self._show_step(event)
        elif isinstance(event, EpochDone | StartScored | CheckpointSaved):
            self._show_score(event)
        elif isinstance(event, SlabDone):
            self._fill(event.stop / event.depth)
            if event.depth > 1:
                self._put(self.numbers, f"{event.stop} of {event.depth} planes")

    def _show_score(self, event: EpochDone | StartScored | CheckpointSaved) -> None:
        if not isinstance(event, EpochDone):
            self._best = event.dice  # the last one is measured on the whole hold-out
        if not isinstance(event, CheckpointSaved):
            self._dice = event.dice
            if self.curves is not None:
                self.curves.add_epoch(event.step, event.dice)

    def show_earlier(self, events: Sequence[Event]) -> None:
        """Draw the curves of the runs that a training continues.

        Parameters
        ----------
        events : sequence of Event
            Of these runs, in order.
        """
        if self.curves is not None:
            self.curves.begin(
                [(event.step, event.loss) for event in events if isinstance(event, StepDone)],
                [
                    (event.step, event.dice)
                    for event in events
                    if isinstance(event, EpochDone) and event.dice is not None
                ],
            )

    def show_plan(self, notice: str, planned: Sequence[Planned]) -> None:
        """Show the plan apart from other notices, with the reasons in its tooltip.

        Parameters
        ----------
        notice : str
            Text of the notice; it is kept if ``planned`` is empty.
        """
        if not planned:
            return
        self._texts = [text for text in self._texts if text != notice]
        self.notices.setText("\n".join(self._texts))
        self.notices.setVisible(bool(self._texts))
        self._put(self.plan, notice)
        self.plan.setToolTip(reasons(planned))

    def show_end(self) -> None:
        """Show the score of the saved model instead of the progress."""
        if self._best is not None:
            self._put(self.numbers, f"Best Dice on the hold-out: {self._best:.3f}; this model was saved.")

    def _show_step(self, event: StepDone) -> None:
        whole = event.seconds + event.seconds_left
        done = event.step - event.first
        self._fill(done / (event.steps - event.first) if event.steps else event.seconds / whole if whole else 0)
        score = "" if self._dice is None else f" · Dice {self._dice:.3f}"
        remaining = f" · {clock(event.seconds_left)} left"
        self._put(self.numbers, f"Epoch {event.epoch} · loss {event.loss:.3f}{score}{remaining}")
        self.numbers.setToolTip(f"Step {event.step} of {event.steps or 'a number that depends on the time budget'}")
        if self.curves is not None:
            self.curves.add_step(event.step, event.loss)

    def _fill(self, fraction: float) -> None:
        self.bar.setRange(0, BAR)
        self.bar.setValue(round(BAR * min(1.0, fraction)))
        self.bar.show()

    @staticmethod
    def _put(label: Any, text: str) -> None:
        label.setText(printable(text))
        label.show()


class Curves(QWidget):  # type: ignore[misc]
    """Loss per step, and below it Dice on the hold-out per epoch; ``loss`` and ``dice`` are their points."""

    def __init__(self) -> None:
        super().__init__()
        import pyqtgraph  # slow to import, and the segment widget does not need it

        self.loss: list[tuple[float, float]] = []
        self.dice: list[tuple[float, float]] = []
        self._graph = pyqtgraph.GraphicsLayoutWidget()
        self._graph.setBackground(None)
        self._graph.ci.setContentsMargins(0, 0, 6, 0)
        self._graph.ci.layout.setVerticalSpacing(2)
        upper, lower = self._graph.addPlot(row=0, col=0), self._graph.addPlot(row=1, col=0)
        for plot, name in ((upper, "loss"), (lower, "Dice")):
            _style(plot, name)
        upper.hideAxis("bottom")
        lower.setXLink(upper)
        lower.setYRange(0, 1, padding=0.02)
        self._loss_line = upper.plot(pen=pyqtgraph.mkPen(LOSS_COLOUR, width=1.5))
        self._dice_line = lower.plot(
            pen=pyqtgraph.mkPen(DICE_COLOUR, width=1.5),
            symbol="o",
            symbolSize=4,
            symbolBrush=DICE_COLOUR,
            symbolPen=None,
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._graph)
        self.setFixedHeight(150)

    @property
    def points(self) -> tuple[int, int]:
        """Number of points drawn for loss and for Dice."""
        return len(self.loss), len(self.dice)

    def clear(self) -> None:
        """Remove all points."""
        self.loss, self.dice = [], []
        self._loss_line.setData([], [])
        self._dice_line.setData([], [])

    def begin(self, loss: list[tuple[float, float]], dice: list[tuple[float, float]]) -> None:
        """Draw earlier points (step, value), after which others are added."""
        self.loss, self.dice = loss[:: len(loss) // MOST_POINTS + 1], dice[:: len(dice) // MOST_POINTS + 1]
        for line, points in ((self._loss_line, self.loss), (self._dice_line, self.dice)):
            line.setData([step for step, _ in points], [value for _, value in points])
        self.setVisible(bool(loss or dice))

    def add_step(self, step: int, loss: float) -> None:
        """Draw the loss of a step."""
        self.loss.append((step, loss))
        if len(self.loss) > MOST_POINTS:
            self.loss = self.loss[::2]  # bounds the time of drawing in long runs
        self._loss_line.setData(*zip(*self.loss, strict=True))
        self.show()

    def add_epoch(self, step: int, dice: float | None) -> None:
        """Draw the score of an epoch."""
        if dice is None:
            return
        self.dice.append((step, dice))
        if len(self.dice) > MOST_POINTS:
            self.dice = self.dice[::2]
        self._dice_line.setData(*zip(*self.dice, strict=True))


def _style(plot: Any, name: str) -> None:
    """Style a plot: no menu, no zoom, axes that are legible on dark and light themes."""
    plot.setMenuEnabled(False)
    plot.setMouseEnabled(False, False)
    plot.hideButtons()
    plot.setLabel("left", name, color=AXIS_COLOUR)
    for side in ("left", "bottom"):
        axis = plot.getAxis(side)
        axis.setPen(AXIS_COLOUR)
        axis.setTextPen(AXIS_COLOUR)
    plot.getAxis("left").setWidth(48)
    plot.getAxis("left").enableAutoSIPrefix(False)


def clock(seconds: float) -> str:
    """Format a duration.

    Returns
    -------
    str
        "0:42", or "1:05:00" for an hour and more.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _text() -> Any:
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    # A word-wrapped label needs the height of its text, and a long path must not widen the dock.
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label
