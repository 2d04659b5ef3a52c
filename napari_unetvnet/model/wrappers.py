"""Wrappers change in place how a network computes, never what it computes, and can be undone.

Wrappers replace submodules, classes of layers or `forward` methods, and the last one applied must be undone first. So
all wrappers of a network are in one list, and `ORDER` fixes their nesting, independent of the order of adding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Undo = Callable[[], None]

__all__ = ["ORDER", "Wrapper", "Wrappers", "replace_forward"]

ORDER = ("memory layout", "synchronised batch norm", "recomputed blocks", "compiled")
"""From the inside out: layers first, then the forward pass of blocks, last that of the whole network."""


@dataclass(frozen=True)
class Wrapper:
    """A change of how a network computes.

    Parameters
    ----------
    name : str
        One of `ORDER`.
    apply : callable
        Changes a network in place, but not its state dict, and returns a function that undoes it exactly.
    """

    name: str
    apply: Callable[[nn.Module], Undo]


class Wrappers:
    """The wrappers of a network, the innermost first."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._applied: list[tuple[Wrapper, Undo]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the applied wrappers, from the inside out."""
        return tuple(wrapper.name for wrapper, _ in self._applied)

    def add(self, wrapper: Wrapper) -> None:
        """Apply a wrapper at its position in `ORDER`, unless it is applied already."""
        if wrapper.name in self.names:
            return
        place = ORDER.index(wrapper.name)
        outer = self._undo_while(lambda name: ORDER.index(name) > place)
        try:
            self._apply(wrapper)
        finally:
            for outer_wrapper in outer:
                self._apply(outer_wrapper)

    def remove(self, name: str) -> None:
        """Undo a wrapper, if it is applied."""
        if name not in self.names:
            return
        _, *outer = self._undo_while(lambda applied: ORDER.index(applied) >= ORDER.index(name))
        for wrapper in outer:
            self._apply(wrapper)

    def _apply(self, wrapper: Wrapper) -> None:
        self._applied.append((wrapper, wrapper.apply(self._network)))

    def _undo_while(self, condition: Callable[[str], bool]) -> list[Wrapper]:
        """Undo the outermost wrappers while a condition on their name holds; return them from the inside out."""
        undone: list[Wrapper] = []
        while self._applied and condition(self._applied[-1][0].name):
            wrapper, undo = self._applied.pop()
            undo()
            undone.insert(0, wrapper)
        return undone


def replace_forward(module: nn.Module, forward: Callable[..., object]) -> Undo:
    """Replace the forward pass of a single module.

    Returns
    -------
    callable
        Undoes it.
    """
    former = vars(module).get("forward")
    module.forward = forward

    def undo() -> None:
        del module.forward
        if former is not None:
            module.forward = former

    return undo
