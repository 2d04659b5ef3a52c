"""A settings model as rows of a form: each field's widget, range, default and tooltip come from its declaration.

A field that may be left out, a number whose size spans decades and a row of numbers are written as text, which the
settings model itself checks: the form never rounds a value and never refuses one without a sentence. A row that is
hidden says nothing, so that its field has its default. A field that the model leaves open begins as auto, and says
nothing either until something else is chosen.
"""

from __future__ import annotations

import re
import types
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, SpinBox
from qtpy.QtWidgets import QFormLayout

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.widgets.auto import AUTO, CHOSEN, Choice, is_auto
from napari_unetvnet.widgets.scroll import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic.fields import FieldInfo

    from napari_unetvnet.registry import Option, Registry
    from napari_unetvnet.settings import Settings

__all__ = ["Field", "OptionsForm", "SettingsForm", "add_row", "form_layout", "show_row"]

LARGEST = 2**31 - 1
LABEL_LETTERS = 18
"""So wide are the labels at least: forms below each other look like one."""
LABELS = {
    "hold_out": "hold-out",
    "steps_per_epoch": "steps an epoch",
    "overlap": "tile overlap",
    "label_values": "labels are",
    "objects_as": "objects as",
    "roi_weight": "ROI weight",
}
EXAMPLES = {
    "regions": "brats, or A=1+2 B=2",
    "lines": "such as 2",
    "ignore_value": "such as 255",
    "deep_supervision_weights": "1 0.5 0.25 ...",
    "min_size": "such as 50, or 1=50 2=10",
    "keep_largest": "such as 1, or 1=1 2=3",
    "fill_holes": "planes or volume",
    "split_depth": "longest voxel edge",
}
"""What stands in an empty line of text."""
NOTHING = "none"
"""No member of a row of words."""


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
        start, left_open = start or {}, getattr(kind, "left_open", ())
        self.open = tuple(name for name in names if name in left_open and name not in start)
        """Fields that begin as auto."""
        self.fields = {
            name: _open_field(name, kind.model_fields[name])
            if name in self.open
            else _field(name, kind.model_fields[name], start.get(name))
            for name in names
        }
        self._layouts: dict[str, Any] = {}
        self._hidden: set[str] = set()

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
            self._layouts[name] = layout

    def show(self, name: str, *, visible: bool) -> None:
        """Show a row or hide it.

        Parameters
        ----------
        name : str
        visible : bool
        """
        self._hidden = self._hidden - {name} if visible else self._hidden | {name}
        if name in self._layouts:
            show_row(self._layouts[name], self.fields[name].widget.native, visible=visible)

    def values(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Read the form.

        Parameters
        ----------
        names : sequence of str, optional
            Which fields (default: all).

        Returns
        -------
        dict
            Plain values for `settings.checked`; fields that are hidden or were left empty are left out.

        Raises
        ------
        SettingsProblem
            If a row of numbers is no row of that many; one line for each.
        """
        wanted = (set(self.fields) if names is None else set(names)) - self._hidden
        return _read({name: field for name, field in self.fields.items() if name in wanted})


class OptionsForm:
    """Rows for the options of a member of a table, made anew when another is chosen.

    Parameters
    ----------
    registry : Registry
    layout : QFormLayout
        Gets the rows at its end.
    without : sequence of str
        Options that are shown elsewhere.
    changed : callable, optional
        Called when a value was changed.
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
        name : str
        start : mapping of str to value
            What to begin with where it is not the option's default.
        """
        self.clear()
        options = [option for option in self._registry.describe(name).options if option.name not in self._without]
        self.fields = {option.name: option_field(option, (start or {}).get(option.name)) for option in options}
        for field in self.fields.values():
            add_row(self._layout, field)
            field.widget.changed.connect(lambda *_: self._changed())

    def clear(self) -> None:
        """Take all rows away."""
        for field in self.fields.values():
            self._layout.removeRow(field.widget.native)
        self.fields = {}

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
    label = layout.labelForField(field.widget.native)
    label.setToolTip(field.widget.tooltip or "")
    label.setMinimumWidth(LABEL_LETTERS * label.fontMetrics().averageCharWidth())


def show_row(layout: Any, widget: Any, *, visible: bool) -> None:
    """Show a row of a form layout or hide it.

    Parameters
    ----------
    layout : QFormLayout
    widget : QWidget
        The row's field.
    visible : bool
    """
    widget.setVisible(visible)
    layout.labelForField(widget).setVisible(visible)


def option_field(option: Option, start: Any = None) -> Field:
    """Make the row of an option of a network or a loss.

    Parameters
    ----------
    option : Option
    start : value, optional
        What to begin with (default: the option's default).

    Returns
    -------
    Field
    """
    kinds: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "floats": tuple[float, ...]}
    kind = Literal[option.choices] if option.choices else kinds[option.kind]
    tooltip = wrapped(f"{option.help} Default: {_written(option.default) or 'empty'}.")
    return _row(_label(option.name), kind, option.default if start is None else start, tooltip, {"min": 0})


def _field(name: str, info: FieldInfo, start: Any) -> Field:
    default = start if start is not None else info.default
    shown = f" Default: {info.default}." if isinstance(info.default, bool | int | float | str) else ""
    field = _row(_label(name), info.annotation, default, wrapped(f"{info.description}{shown}"), _bounds(info))
    if name in EXAMPLES:
        field.widget.native.setPlaceholderText(EXAMPLES[name])
    return field


def _open_field(name: str, info: FieldInfo) -> Field:
    """Make the row of a field that is chosen from the data unless the user chooses."""
    label, tooltip = _label(name), f"{wrapped(info.description or '')}\n{CHOSEN}"
    if not (words := _words(info.annotation)):
        line = _text(label, info.annotation, None, tooltip)
        example = EXAMPLES.get(name) or ("z y x" if _count(info.annotation) else "")
        empty = f"{AUTO}, or {example.removeprefix('such as ')}" if example else AUTO
        line.widget.native.setProperty("empty", empty)
        line.widget.native.setPlaceholderText(empty)
        return Field(label, line.widget, lambda: None if is_auto(str(line.widget.value)) else line.read())
    box = Choice((AUTO, *words), AUTO, tooltip, typed=bool(_open_choices(info.annotation)))
    several = get_origin(_without_none(info.annotation)[0]) is tuple
    return Field(
        label, box, lambda: None if is_auto(box.value) else _split(box.value) if several else box.value or None
    )


def _words(annotation: Any) -> tuple[str, ...]:
    """Give what can be chosen for a type; nothing if it has to be typed."""
    kind, _ = _without_none(annotation)
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        each = get_args(get_args(kind)[0])
        rows = [" ".join(row) for count in range(len(each), 0, -1) for row in combinations(each, count)]
        return (*rows, NOTHING)
    if get_origin(kind) is Literal:
        return tuple(word for word in get_args(kind) if word != AUTO)
    return ("yes", "no") if kind is bool else tuple(word for word in _open_choices(annotation) if word != AUTO)


def _split(text: str) -> tuple[str, ...]:
    return () if text == NOTHING else tuple(text.split())


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def _row(label: str, annotation: Any, default: Any, tooltip: str, bounds: dict[str, Any]) -> Field:
    """Choose the widget for a type."""
    if choices := _open_choices(annotation):
        box = Choice(choices, _written(default), tooltip)
        return Field(label, box, lambda: box.value or None)
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
    count = _count(kind)
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


def _count(annotation: Any) -> int:
    """Give how many numbers a row of them has; 0 for other types."""
    kind, _ = _without_none(annotation)
    return 0 if Ellipsis in get_args(kind) or get_origin(kind) is not tuple else len(get_args(kind))


def _open_choices(annotation: Any) -> tuple[str, ...]:
    """Give the words of a union of some words and another type; none of any other type."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return ()
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    return tuple(words) if len(kinds) > 1 else ()


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
