"""The runs that are kept, those of other viewers among them: take one up, stop it, remove it, and limit their disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_unetvnet import runs
from napari_unetvnet.errors import UserError
from napari_unetvnet.files import amount
from napari_unetvnet.runs.amounts import age_text
from napari_unetvnet.runs.disk import NO_LIMIT, disk_limit, set_disk_limit
from napari_unetvnet.runs.kept import described, kept_runs, remove_run, why_it_stays
from napari_unetvnet.runs.state import RUNNING
from napari_unetvnet.widgets.scroll import WrappedLabel, wrapped

if TYPE_CHECKING:
    from napari_unetvnet.runs.kept import KeptRun

__all__ = ["RunList"]

COLUMNS = ("run", "state", "age", "size")
HEIGHT = 150


class RunList(QWidget):  # type: ignore[misc]
    """Lists the runs of a kind, the newest first.

    Parameters
    ----------
    kind : {"train", "segment", "inspect"}
        Runs of other kinds are counted in the sum only.
    """

    follow_requested = Signal(object, bool)
    """Folder of a run, and whether it is to be resumed."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind
        self._runs: list[KeptRun] = []
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().hide()
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.setFixedHeight(HEIGHT)
        self.table.itemSelectionChanged.connect(self._chosen)
        self.buttons = {name: QPushButton(name) for name in ("Follow", "Stop", "Resume", "Remove")}
        for name, action in zip(self.buttons, (self._follow, self._stop, self._resume, self._remove), strict=True):
            self.buttons[name].clicked.connect(action)
        self.said, self.limit = WrappedLabel(), QLineEdit()
        self.limit.setPlaceholderText("no limit")
        text = "What all runs may keep, such as 20GB. Beyond it the oldest that can be computed again are removed."
        self.limit.setToolTip(wrapped(text))
        self.limit.editingFinished.connect(self._limit_set)
        row, below = QHBoxLayout(), QHBoxLayout()
        for button in self.buttons.values():
            row.addWidget(button)
        below.addWidget(self.said, 2)
        below.addWidget(self.limit, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (row, below):
            column.addLayout(part)
        column.insertWidget(0, self.table)
        self._chosen()

    @property
    def chosen(self) -> KeptRun | None:
        """The run of the chosen row."""
        rows = self.table.selectionModel().selectedRows()
        return self._runs[rows[0].row()] if rows else None

    def refresh(self) -> None:
        """Read the runs anew and keep the choice."""
        chosen = self.chosen
        try:
            everything = kept_runs()
            limit = disk_limit()
        except UserError as problem:
            self.said.setText(str(problem))
            return
        self._runs = [run for run in everything if run.command == self._kind]
        self.table.setRowCount(len(self._runs))
        for row, run in enumerate(self._runs):
            cells = (run.name, run.state.name, age_text(time.time() - run.changed), amount(run.size))
            for column, text in enumerate(cells):
                item = QTableWidgetItem(text)
                item.setToolTip(wrapped(f"{run.name}: {run.made or 'nothing made'}"))
                item.setTextAlignment(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
                self.table.setItem(row, column, item)
            if chosen is not None and run.folder == chosen.folder:
                self.table.selectRow(row)
        self.limit.setText("" if limit is None else amount(limit).replace(" ", ""))
        self.said.setText(f"All runs keep {amount(sum(run.size for run in everything))}, at most:")
        self._chosen()

    def _chosen(self) -> None:
        """Enable what can be done with the chosen run."""
        run = self.chosen
        running = run is not None and run.state.name == RUNNING
        for name in ("Follow", "Stop"):
            self.buttons[name].setEnabled(running)
        self.buttons["Resume"].setEnabled(run is not None and run.resumable)
        self.buttons["Remove"].setEnabled(run is not None and not running)

    def _follow(self) -> None:
        if self.chosen is not None:
            self.follow_requested.emit(self.chosen.folder, False)

    def _resume(self) -> None:
        if self.chosen is not None:
            self.follow_requested.emit(self.chosen.folder, True)

    def _stop(self) -> None:
        if self.chosen is not None and described(self.chosen.folder).state.name == RUNNING:
            runs.ask_to_stop(self.chosen.folder)
            self.said.setText(f"{self.chosen.name} stops after its current step; its progress is saved.")

    def _remove(self) -> None:
        run = self.chosen
        if run is None:
            return
        everything = kept_runs()
        text = why_it_stays(run.folder, everything)
        if not text and self.asked(run):
            try:
                remove_run(run.folder, everything)
            except UserError as problem:
                text = str(problem)
        self.refresh()
        if text:
            self.said.setText(text)

    def asked(self, run: KeptRun) -> bool:
        """Ask a person whether a run is to be removed.

        Returns
        -------
        bool
        """
        lost = ["a model"] * run.has_model + ["labels that were painted, and may be nowhere else"] * run.painted
        text = f"Remove {run.name} ({amount(run.size)})?" + (f" It holds {' and '.join(lost)}." if lost else "")
        return bool(QMessageBox.question(self, "Remove a run", text) == QMessageBox.StandardButton.Yes)

    def _limit_set(self) -> None:
        """Store a limit that was typed."""
        try:
            set_disk_limit(self.limit.text().strip() or NO_LIMIT)
        except UserError as problem:
            self.said.setText(str(problem))
            return
        self.refresh()
