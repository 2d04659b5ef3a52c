"""The choice of a network and its width, either of which may be auto; each other option has a row."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QSpinBox

from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.settings import TrainJob
from napari_unetvnet.settings.describe import describe_settings
from napari_unetvnet.widgets.auto import AUTO, CHOSEN, describe, is_auto
from napari_unetvnet.widgets.form import OptionsForm
from napari_unetvnet.widgets.scroll import narrow, wrapped

__all__ = ["NetworkBox"]

WIDTH = 16
"""Default width (channels of the first stage): trains in minutes on a laptop. Published networks have 64."""
ABOUT_AUTO = f"{describe_settings(TrainJob)['network'].help} {CHOSEN}"


class NetworkBox(QComboBox):  # type: ignore[misc]
    """Chooses a network and its options.

    Parameters
    ----------
    layout : QFormLayout
        The rows of the options, except the width, are appended to it.
    """

    changed = Signal()
    """The network or one of its options has changed."""

    def __init__(self, layout: Any) -> None:
        super().__init__()
        narrow(self)
        self.width_box = QSpinBox()
        self.options = OptionsForm(NETWORKS, layout, without=("width",), changed=self.changed.emit)
        self.addItems([*([AUTO] if "network" in TrainJob.left_open else []), *NETWORKS])
        self._chosen(self.currentText())
        self.currentTextChanged.connect(self._chosen)
        self.width_box.valueChanged.connect(lambda _: self.changed.emit())

    def values(self) -> dict[str, Any]:
        """Read network and options.

        Returns
        -------
        dict
            Plain values, without those that are auto.
        """
        option = self.options.values()
        if self.width_box.isEnabled() and self.width_box.value():
            option["width"] = self.width_box.value()
        if is_auto(self.currentText()):
            return {"option": option} if option else {}
        return {"network": self.currentText(), "option": option}

    def _chosen(self, name: str) -> None:
        if is_auto(name):
            self.options.clear()
            self._reset_width(AUTO, 0, f"Channels of the first stage. {CHOSEN}")
            describe(self, wrapped(ABOUT_AUTO))
        else:
            self.options.choose(name)
            described = NETWORKS.describe(name)
            text = next((option.help for option in described.options if option.name == "width"), "")
            text += f" {WIDTH} trains in minutes on a laptop; the published network has "
            self._reset_width("", WIDTH, f"{text}{described.defaults.get('width')}.")
            self.width_box.setEnabled("width" in described.defaults)
            describe(self, wrapped(described.summary))
        self.changed.emit()

    def _reset_width(self, special: str, value: int, about: str) -> None:
        """Reset the width box; 0 means auto, which is possible only if the network is auto too."""
        self.width_box.setSpecialValueText(special)
        self.width_box.setEnabled(True)
        self.width_box.setRange(min(value, 1), 1024)
        self.width_box.setValue(value)
        describe(self.width_box, wrapped(about))
