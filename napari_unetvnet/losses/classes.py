"""Which channels of a network a loss means by the name of a class or of a role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unetvnet.errors import SettingsProblem, near_names
from napari_unetvnet.losses.expression import REST, LossTerm, class_words, write_loss

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BACKGROUND", "LossClasses", "Roles", "roles_by_position"]

BACKGROUND = "background"
"""The name of the background class, where it has no other."""
Roles = Mapping[str, tuple[int, ...]]
"""The channels of each role."""
BINARY = {"background": (), "foreground": (0,)}
"""Those of a binary head."""


@dataclass(frozen=True)
class LossClasses:
    """The classes of a network, as a loss refers to them.

    Parameters
    ----------
    names : tuple of str
        One for each class, in class order.
    values : tuple of int
        Label value of each class; empty where only names are meant.
    head : {"binary", "multiclass", "multilabel"}
    background : int or None
        Index of the background class, if there is one.
    lines : tuple of int
        Indices of the classes that are thin lines.
    blurs : int
        Number of channels after that of a line that hold blurred copies of it.
    """

    names: tuple[str, ...]
    values: tuple[int, ...] = ()
    head: str = "multiclass"
    background: int | None = 0
    lines: tuple[int, ...] = ()
    blurs: int = 0

    def index(self, word: str) -> int:
        """Find a class by its name or value.

        Returns
        -------
        int

        Raises
        ------
        SettingsProblem
            If there is no such class.
        """
        if word in self.names:
            return self.names.index(word)
        if word.isdecimal() and int(word) in self.values:
            return self.values.index(int(word))
        if word == BACKGROUND and self.background is not None:
            return self.background
        raise SettingsProblem(f"There is no class {word!r}{near_names(word, self._words)}")

    def channels(self, index: int) -> tuple[int, ...]:
        """Give the channels of a class: its own, and those of the blurred copies of a line.

        Returns
        -------
        tuple of int
            For a binary head, whose only channel is that of the second class, the index of the class.
        """
        first = index + self.blurs * sum(line < index for line in self.lines)
        return tuple(range(first, first + 1 + self.blurs * (index in self.lines)))

    def channels_of(self, terms: Sequence[LossTerm]) -> list[tuple[int, ...] | None]:
        """Give the channels for each of which a term is computed alone.

        Returns
        -------
        list of tuple of int, or None for a term of all classes together

        Raises
        ------
        SettingsProblem
            If a term is for a class that there is not, or a class has no loss.
        """
        named = [[self.index(word) for word in term.classes if word != REST] for term in terms]
        covered = {index for row in named for index in row}
        rest = [index for index in range(len(self.names)) if index not in covered]
        self._check_rest(terms, rest)
        return [
            tuple(c for index in (*row, *(rest if REST in term.classes else ())) for c in self.channels(index))
            if term.classes
            else None
            for term, row in zip(terms, named, strict=True)
        ]

    def _check_rest(self, terms: Sequence[LossTerm], rest: list[int]) -> None:
        """Refuse classes without a loss, and a loss for the rest without one."""
        text = write_loss(tuple(terms))
        if any(REST in term.classes for term in terms):
            if not rest:
                raise SettingsProblem(f"Loss {text!r}: every class has a loss of its own; leave out {REST!r}.")
            return
        if self.head == "multilabel":
            left = rest
        else:  # the probabilities of exclusive classes sum to 1, so one class may be left out
            left = [index for index in rest if index != self.background] if len(rest) > 1 else []
        if left and all(term.classes for term in terms):
            names = ", ".join(self.names[index] for index in left)
            raise SettingsProblem(
                f"Loss {text!r} has nothing for class {names}; add it, or a part such as '{REST}: dice_ce'."
            )

    def roles(self, term: LossTerm, names: Sequence[str]) -> Roles:
        """Find the channels of each role of a loss.

        Parameters
        ----------
        term : LossTerm
            Its options say which classes have a role. Otherwise the background is the background class, lines are the
            classes that were chosen as lines, and the block is the one class that is left.
        names : sequence of str
            Of the roles.

        Returns
        -------
        mapping of str to tuple of int

        Raises
        ------
        SettingsProblem
            If a class has two roles or none, a role needs one class and there are several, or there is no line.
        """
        background = () if self.background is None else (self.background,)
        if "heatmaps" in names:
            own = tuple(self.channels(index)[0] for index in range(len(self.names)))
            copies = tuple(channel for index in self.lines for channel in self.channels(index)[1:])
            return {"classes": (0,) if self.head == "binary" else own, "heatmaps": copies}
        if "block" not in names:
            foreground = tuple(index for index in range(len(self.names)) if index not in background)
            rows = {"background": background, "foreground": foreground}
            # The one channel of a binary head is that of its second class, whether or not the first is a background.
            return {name: self._all(rows[name]) if self.head != "binary" else BINARY[name] for name in names}
        chosen = {name: tuple(map(self.index, class_words(str(term.option[name]), self.names))) for name in names}
        roles = {"background": chosen["background"] or background, "lines": chosen["lines"] or self.lines}
        taken = {*roles["background"], *roles["lines"]}
        roles["block"] = chosen["block"] or tuple(index for index in range(len(self.names)) if index not in taken)
        self._check_roles(term, roles)
        return {name: self._all(row) for name, row in roles.items()}

    def _all(self, indices: Iterable[int]) -> tuple[int, ...]:
        return tuple(channel for index in indices for channel in self.channels(index))

    def _check_roles(self, term: LossTerm, roles: Mapping[str, Sequence[int]]) -> None:
        """Refuse roles that do not divide the classes."""
        lines, used = [], [index for row in roles.values() for index in row]
        if not roles["lines"]:
            lines.append(
                "no class is a line; name them, such as --lines 1, or lines=NAME in parentheses after the loss"
            )
        if len(roles["block"]) > 1:
            names = ", ".join(self.names[index] for index in roles["block"])
            lines.append(
                f"one class can be the block, not {names}; name it with block=NAME, and the others with lines="
            )
        if doubled := sorted({self.names[index] for index in used if used.count(index) > 1}):
            lines.append(f"class {', '.join(doubled)} has two roles; give each class one")
        if missing := [name for index, name in enumerate(self.names) if index not in used]:
            lines.append(f"class {', '.join(missing)} has no role; name it with lines=NAME or block=NAME")
        if lines:
            raise SettingsProblem(*(f"Loss {term.name}: {line}." for line in lines))

    @property
    def _words(self) -> list[str]:
        """Every word by which a class can be named."""
        own = [*self.names, *map(str, self.values)]
        return list(dict.fromkeys([*own, BACKGROUND] if self.background is not None else own))


def roles_by_position(names: Sequence[str], channels: int, head: str) -> Roles:
    """Give the channels of each role where classes are not known: background first, the block last of at least three.

    Parameters
    ----------
    names : sequence of str
        Of the roles.
    channels : int
        Number of channels.

    Returns
    -------
    mapping of str to tuple of int
    """
    first = 1 if "block" in names or head == "multiclass" else 0
    last = channels - 1 if "block" in names and channels > 2 else channels
    rows = {"background": range(first), "foreground": range(first, channels), "lines": range(first, last)}
    rows |= {"block": range(last, channels), "classes": range(channels), "heatmaps": range(0)}
    return {name: tuple(rows[name]) for name in names}
