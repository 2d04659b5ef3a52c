"""A settings model as rows of a form: each field's widget, range, default and tooltip come from its declaration.

A field that may be left out, a number whose size spans decades and a row of numbers are written as text, which the
settings model itself checks: the form never rounds a value and never refuses one without a sentence.
"""

from __future__ import annotations

import re
import textwrap
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, SpinBox
from qtpy.QtWidgets import QFormLayout

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic.fields import FieldInfo

    from napari_unetvnet.registry import Option, Registry
    from napari_unetvnet.settings import Settings

__all__ = ["Field", "OptionsForm", "SettingsForm", "add_row", "form_layout", "wrapped"]

LARGEST = 2**31 - 1
LABELS = {"hold_out": "hold-out", "epoch_steps": "steps an epoch", "overlap": "tile overlap"}


@dataclass(frozen=True, eq=False)
class Field:
    """A row: the magicgui widget and how to read it; reading gives None where the default is wanted."""

    label: str
    widget: Any
    read: Callable[[], Any]


class SettingsForm:
    """Rows for some fields of a settings model.

    Parameters
    ----------
    kind : type of Settings
    names : sequence of str
        Fields to show.
    start : mapping of str to value
        What to begin with where it is not the field's default.
    """

    def __init__(self, kind: type[Settings], names: Sequence[str], start: Mapping[str, Any] | None = None) -> None:
        start = start or {}
        self.fields = {name: _field(name, kind.model_fields[name], start.get(name)) for name in names}

    def add_to(self, layout: Any, names: Sequence[str] | None = None) -> None:
        """Put rows into a layout.

        Parameters
        ----------
        layout : QFormLayout
        names : sequence of str, optional
            Which (default: all).
        """
        for name in names or self.fields:
            add_row(layout, self.fields[name])

    def values(self) -> dict[str, Any]:
        """Read the form.

        Returns
        -------
        dict
            Plain values for `settings.checked`; fields that were left empty are left out.

        Raises
        ------
        SettingsProblem
            If a row of numbers is no row of that many; one line for each.
        """
        return _read(self.fields)


class OptionsForm:
    """Rows for the options of a member of a table, made anew when another is chosen.

    Parameters
    ----------
    registry : Registry
    layout : QFormLayout
        Gets the rows at its end.
    without : sequence of str
        Options that are shown elsewhere.
    """

    def __init__(self, registry: Registry, layout: Any, without: Sequence[str] = ()) -> None:
        self._registry, self._layout, self._without = registry, layout, tuple(without)
        self.fields: dict[str, Field] = {}

    def choose(self, name: str) -> None:
        """Show the options of a member.

        Parameters
        ----------
        name : str
        """
        for field in self.fields.values():
            self._layout.removeRow(field.widget.native)
        options = [option for option in self._registry.describe(name).options if option.name not in self._without]
        self.fields = {option.name: option_field(option) for option in options}
        for field in self.fields.values():
            add_row(self._layout, field)

    def values(self) -> dict[str, Any]:
        """Read the options.

        Returns
        -------
        dict
        """
        return _read(self.fields)


def form_layout(parent: Any = None) -> Any:
    """Make a form layout that uses the whole width of a narrow dock.

    Parameters
    ----------
    parent : QWidget, optional

    Returns
    -------
    QFormLayout
    """
    layout = QFormLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setVerticalSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return layout


def add_row(layout: Any, field: Field) -> None:
    """Put a field into a form layout, its tooltip on the label too.

    Parameters
    ----------
    layout : QFormLayout
    field : Field
    """
    layout.addRow(field.label, field.widget.native)
    layout.labelForField(field.widget.native).setToolTip(field.widget.tooltip or "")


def wrapped(text: str) -> str:
    """Break a tooltip into lines, which Qt does not.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return textwrap.fill(text.replace("``", ""), 60)


def option_field(option: Option) -> Field:
    """Make the row of an option of a network.

    Parameters
    ----------
    option : Option

    Returns
    -------
    Field
    """
    kinds: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str}
    kind = Literal[option.choices] if option.choices else kinds[option.kind]
    tooltip = wrapped(f"{option.help} Default: {option.default}.")
    return _row(_label(option.name), kind, option.default, tooltip, {"min": 0})


def _field(name: str, info: FieldInfo, start: Any) -> Field:
    default = start if start is not None else info.default
    shown = f" Default: {info.default}." if isinstance(info.default, bool | int | float | str) else ""
    return _row(_label(name), info.annotation, default, wrapped(f"{info.description}{shown}"), _bounds(info))


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def _row(label: str, annotation: Any, default: Any, tooltip: str, bounds: dict[str, Any]) -> Field:
    """Choose the widget for a type."""
    kind, optional = _without_none(annotation)
    if get_origin(kind) is Literal:
        combo = ComboBox(choices=list(get_args(kind)), value=default, tooltip=tooltip)
        return Field(label, combo, lambda: combo.value)
    if kind is bool:
        box = CheckBox(value=bool(default), text="", tooltip=tooltip)
        return Field(label, box, lambda: bool(box.value))
    if kind is int and not optional and default is not None:
        spin = SpinBox(value=default, min=bounds.get("min", -LARGEST), max=bounds.get("max", LARGEST), tooltip=tooltip)
        return Field(label, spin, lambda: int(spin.value))
    if kind is float and not optional and bounds.keys() == {"min", "max"} and bounds["max"] <= 1:
        share = FloatSpinBox(value=default, step=0.05, tooltip=tooltip, **bounds)
        return Field(label, share, lambda: round(float(share.value), 6))
    return _text(label, kind, default, tooltip)


def _text(label: str, kind: Any, default: Any, tooltip: str) -> Field:
    """Make a line of text; empty means the default."""
    line = LineEdit(value=_written(default), tooltip=tooltip)
    count = len(get_args(kind)) if get_origin(kind) is tuple else 0
    line.native.setPlaceholderText("z y x" if count == 3 else "default")

    def read() -> Any:
        text = str(line.value).strip()
        if not text or not count:
            return text or None
        words = [word for word in re.split(r"[\s,;x]+", text.strip("()[]")) if word]
        if len(words) != count:
            raise SettingsProblem(f"{label.capitalize()} is {text!r}; give {count} numbers z y x, such as 1 128 128.")
        return words

    return Field(label, line, read)


def _written(default: Any) -> str:
    if default is None:
        return ""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Look through Annotated and Optional; tell whether the latter was there."""
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [kind for kind in get_args(annotation) if kind is not type(None)]
        return (rest[0] if len(rest) == 1 else str), True
    return annotation, False


def _bounds(info: FieldInfo) -> dict[str, Any]:
    """Read the range of a number from its declaration; one that excludes its end counts for whole numbers only."""
    bounds: dict[str, Any] = {}
    for item in info.metadata:
        for attribute, key, inward in (("ge", "min", 0), ("gt", "min", 1), ("le", "max", 0), ("lt", "max", -1)):
            if (limit := getattr(item, attribute, None)) is not None and (not inward or info.annotation is int):
                bounds[key] = limit + inward
    return bounds


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
