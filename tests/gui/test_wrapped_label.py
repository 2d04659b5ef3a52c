"""A text in a form: as high as its lines, also after it became shorter or the panel wider."""

from __future__ import annotations

from qtpy.QtWidgets import QApplication, QFormLayout, QWidget

from napari_unetvnet.widgets.scroll import WrappedLabel


def shown(qtbot, width):
    window, label = QWidget(), WrappedLabel()
    QFormLayout(window).addRow("model", label)
    qtbot.addWidget(window)
    window.resize(width, 400)
    window.show()
    return window, label


def lines(label):
    return round(label.height() / label.fontMetrics().lineSpacing())


def test_a_shorter_text_takes_less_height(qtbot):
    _, label = shown(qtbot, 300)
    label.setText("many words " * 40)
    QApplication.processEvents()
    assert lines(label) > 5
    label.setText("one line")
    QApplication.processEvents()
    assert lines(label) == 1
    label.setText("")
    QApplication.processEvents()
    assert label.height() <= 1


def test_a_wider_panel_has_fewer_lines_and_a_narrower_one_more(qtbot):
    window, label = shown(qtbot, 300)
    label.setText("many words " * 40)
    QApplication.processEvents()
    before = lines(label)
    window.resize(900, 400)
    QApplication.processEvents()
    assert lines(label) < before / 2
    window.resize(300, 400)
    QApplication.processEvents()
    assert lines(label) == before
