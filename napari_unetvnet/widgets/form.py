"""A settings model as rows of a form: widget, range, default and tooltip of each field come from its declaration.

Optional fields, numbers that span decades and tuples of numbers are text fields, which the settings model validates:
the form never rounds a value and never rejects one without a message. A hidden row has no value, so its field has its
default. A field that the model chooses from the data starts as auto, and has no value until the user chooses one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, SpinBox
from qtpy.QtWidgets import QFormLayout

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.settings.describe import describe_option, describe_settings
from napari_unetvnet.widgets.auto import AUTO, CHOSEN, Choice, is_auto
from napari_unetvnet.widgets.scroll import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_unetvnet.registry import Registry
    from napari_unetvnet.settings import Settings
    from napari_unetvnet.settings.describe import Setting

__all__ = ["Field", "OptionsForm", "SettingsForm", "add_row", "form_layout", "show_row"]

LARGEST = 2**31 - 1
LABEL_LETTERS = 18
"""Minimum width of row labels, so that consecutive forms are aligned."""
LABELS = {
    "hold_out": "hold-out",
    "final_fit": "final fit",
    "steps_per_epoch": "steps per epoch",
    "overlap": "tile overlap",
    "label_values": "labels are",
    "objects_as": "objects as",
    "roi_weight": "ROI weight",
    "lr_schedule": "LR schedule",
    "ema_decay": "EMA decay",
    "batch": "batch size",
    "tta": "TTA",
}
EXAMPLES = {
    "regions": "brats, or A=1+2 B=2",
    "lines": "such as 2",
    "ignore_value": "such as 255",
    "normalise_mean": "such as 120",
    "normalise_std": "such as 40",
    "normalise_window": "such as -160 240",
    "deep_supervision_weights": "1 0.5 0.25 ...",
    "region_model": "none, or a name or file",
    "region_class": "such as 1, or a name",
    "region_threshold": "such as 0.5",
    "region_largest": "such as 1",
    "min_size": "such as 50, or 1=50 2=10",
    "keep_largest": "such as 1, or 1=1 2=3",
    "fill_holes": "planes or volume",
    "split_depth": "longest voxel edge",
}
"""Placeholder of an empty text field."""
NOTHING = "none"
"""The entry for an empty selection of words."""


@dataclass(frozen=True, eq=False)
class Field:
    """A row: a magicgui widget and the function that reads it, which returns None for the default."""

    label: str
    widget: Any
    read: Callable[[], Any]


class SettingsForm:
    """Rows for fields of a settings model.

    Parameters
    ----------
    names : sequence of str
        Fields to show.
    """

    def __init__(self, kind: type[Settings], names: Sequence[str]) -> None:
        described = describe_settings(kind)
        self.auto_fields = tuple(name for name in names if described[name].auto)
        """Fields that start as auto."""
        self.fields = {name: _field(described[name]) for name in names}
        self._layouts: dict[str, Any] = {}
        self._hidden: set[str] = set()

    def add_to(self, layout: Any, names: Sequence[str] | None = None) -> None:
        """Add rows to a layout.

        Parameters
        ----------
        names : sequence of str, optional
            Fields (default: all).
        """
        for name in names or self.fields:
            add_row(layout, self.fields[name])
            self._layouts[name] = layout

    def show(self, name: str, *, visible: bool) -> None:
        """Show a row or hide it."""
        self._hidden = self._hidden - {name} if visible else self._hidden | {name}
        if name in self._layouts:
            show_row(self._layouts[name], self.fields[name].widget.native, visible=visible)

    def values(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Read the form.

        Parameters
        ----------
        names : sequence of str, optional
            Fields (default: all).

        Returns
        -------
        dict
            Plain values for `settings.checked`, without hidden and empty fields.

        Raises
        ------
        SettingsProblem
            If a row has the wrong number of numbers; one line each.
        """
        visible = (set(self.fields) if names is None else set(names)) - self._hidden
        return _read({name: field for name, field in self.fields.items() if name in visible})


class OptionsForm:
    """Rows for the options of a member of a registry, rebuilt when another member is chosen.

    Parameters
    ----------
    layout : QFormLayout
        The rows are appended to it.
    without : sequence of str
        Options that are shown elsewhere.
    changed : callable, optional
        Called when a value has changed.
    """

    def __init__(
        self, registry: Registry, layout: Any, without: Sequence[str] = (), changed: Callable[[], None] | None = None
    ) -> None:
        self._registry, self._layout, self._without = registry, layout, tuple(without)
        self._changed = changed or (lambda: None)
        self.fields: dict[str, Field] = {}

    def choose(self, name: str, start: Mapping[str, Any] | None = None) -> None:
        """Show the options of a member.

        Parameters
        ----------
        start : mapping of str to value
            Initial values that differ from the defaults.
        """
        self.clear()
        options = [option for option in self._registry.describe(name).options if option.name not in self._without]
        self.fields = {option.name: _option_field(describe_option(option), start or {}) for option in options}
        for field in self.fields.values():
            add_row(self._layout, field)
            field.widget.changed.connect(lambda *_: self._changed())

    def clear(self) -> None:
        """Remove all rows."""
        for field in self.fields.values():
            self._layout.removeRow(field.widget.native)
        self.fields = {}

    def values(self) -> dict[str, Any]:
        """Read the options."""
        return _read(self.fields)


def form_layout(parent: Any = None) -> Any:
    """Create a form layout that uses the whole width of a narrow dock."""
    layout = QFormLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setVerticalSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return layout


def add_row(layout: Any, field: Field) -> None:
    """Add a field to a form layout, with its tooltip on the label too."""
    layout.addRow(field.label, field.widget.native)
    label = layout.labelForField(field.widget.native)
    label.setToolTip(field.widget.tooltip or "")
    label.setMinimumWidth(LABEL_LETTERS * label.fontMetrics().averageCharWidth())


def show_row(layout: Any, widget: Any, *, visible: bool) -> None:
    """Show a row of a form layout or hide it.

    Parameters
    ----------
    widget : QWidget
        The field of the row.
    """
    widget.setVisible(visible)
    layout.labelForField(widget).setVisible(visible)


def _option_field(option: Setting, start: Mapping[str, Any]) -> Field:
    """Create the row of an option of a network or a loss."""
    tooltip = wrapped(f"{option.help} Default: {_written(option.default) or 'empty'}.")
    return _row(option, start.get(option.name, option.default), tooltip)


def _field(setting: Setting) -> Field:
    """Create the row of a setting."""
    if setting.auto:
        return _auto_row(setting)
    shown = f" Default: {setting.default}." if isinstance(setting.default, bool | int | float | str) else ""
    return _row(setting, setting.default, wrapped(f"{setting.help}{shown}"))


def _auto_row(setting: Setting) -> Field:
    """Create the row of a setting that is chosen from the data unless the user sets it."""
    label, tooltip = _label(setting), f"{wrapped(setting.help)}\n{CHOSEN}"
    if words := _words(setting):
        box = Choice((AUTO, *words), AUTO, tooltip, typed=bool(setting.words))
        nothing = NOTHING if NOTHING in setting.words + setting.choices else ()  # "none" may be a value of the setting
        values = {AUTO: None, NOTHING: nothing, "": None}
        return Field(label, box, lambda: values.get(box.value, box.value))
    line = _text(setting, None, tooltip)
    example = _example(setting).removeprefix("such as ")
    empty = f"{AUTO}, or {example}" if example else AUTO
    line.widget.native.setProperty("empty", empty)
    line.widget.native.setPlaceholderText(empty)
    return Field(label, line.widget, lambda: None if is_auto(str(line.widget.value)) else line.read())


def _words(setting: Setting) -> tuple[str, ...]:
    """Return the choices besides auto; empty if the value has to be typed."""
    if setting.words or setting.count == 1:
        words = setting.words or (("yes", "no") if setting.kind == "bool" else setting.choices)
        return tuple(word for word in words if word != AUTO)
    if setting.by_class or setting.kind != "choice":
        return ()
    lengths = range(len(setting.choices), 0, -1)
    return (*(" ".join(row) for length in lengths for row in combinations(setting.choices, length)), NOTHING)


def _label(setting: Setting) -> str:
    return LABELS.get(setting.name, setting.name.replace("_", " "))


def _row(setting: Setting, value: Any, tooltip: str) -> Field:
    """Choose the widget for a kind of setting."""
    label = _label(setting)
    if setting.words:
        box = Choice(setting.words, _written(value), tooltip)
        return Field(label, box, lambda: box.value or None)
    if setting.count != 1:
        return _text(setting, value, tooltip)
    if setting.kind == "choice":
        combo = ComboBox(choices=setting.choices, value=value, nullable=setting.optional, tooltip=tooltip)
        return Field(label, combo, lambda: combo.value)
    if setting.kind == "bool":
        check = CheckBox(value=bool(value), text="", tooltip=tooltip)
        return Field(label, check, lambda: bool(check.value))
    return _text(setting, value, tooltip) if value is None or setting.optional else _number(setting, value, tooltip)


def _number(setting: Setting, value: Any, tooltip: str) -> Field:
    """Choose the widget for a required number; a number that may need many digits is a text field."""
    label, least, most = _label(setting), setting.bounds.ge, setting.bounds.le
    if setting.kind == "int":
        low, high = -LARGEST if least is None else least, LARGEST if most is None else most
        spin = SpinBox(value=value, min=low, max=high, tooltip=tooltip)
        return Field(label, spin, lambda: int(spin.value))
    if setting.kind == "float" and least is not None and most is not None and most <= 1:
        fraction = FloatSpinBox(value=value, min=least, max=most, step=0.05, tooltip=tooltip)
        return Field(label, fraction, lambda: round(float(fraction.value), 6))
    return _text(setting, value, tooltip)


def _text(setting: Setting, value: Any, tooltip: str) -> Field:
    """Create a text field; empty means the default."""
    label, count = _label(setting), setting.count or 1
    line = LineEdit(value=_written(value), tooltip=tooltip)
    line.native.setPlaceholderText(_example(setting) or "default")

    def read() -> Any:
        text = str(line.value).strip()
        if not text or count == 1:
            return text or None
        words = [word for word in re.split(r"[\s,;x]+", text.strip("()[]")) if word]
        if len(words) != count:
            raise SettingsProblem(f"{label.capitalize()} is {text!r}; give {count} numbers z y x, such as 1 128 128.")
        return words

    return Field(label, line, read)


def _example(setting: Setting) -> str:
    """Return the placeholder of an empty text field; "" if no example is needed."""
    return EXAMPLES.get(setting.name) or ("z y x" if setting.count == 3 else "")


def _written(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read(fields: Mapping[str, Field]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    lines: list[str] = []
    for name, field in fields.items():
        try:
            value = field.read()
        except SettingsProblem as problem:
            lines += problem.lines
            continue
        if value is not None:
            values[name] = value
    if lines:
        raise SettingsProblem(*lines)
    return values
