"""What is wrapped around a network: how it computes is changed in place, never what, and each change can be undone.

Wrappers replace submodules, classes of layers or `forward` methods, and what was applied last must be undone first. So
all wrappers of a network are in one list, and `ORDER` says which is inside which, in whatever order they are added.
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
"""From the inside: layers are replaced first, then the pass of blocks, last that of the whole, which holds them all."""


@dataclass(frozen=True)
class Wrapper:
    """A change of how a network computes.

    Parameters
    ----------
    name : str
        One of `ORDER`.
    apply : callable
        Changes a network in place, but no weight and no name in its state dict, and gives what undoes it exactly.
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
        """What the network is wrapped in, from the inside to the outside."""
        return tuple(wrapper.name for wrapper, _ in self._applied)

    def add(self, wrapper: Wrapper) -> None:
        """Apply a wrapper in its place in the order; nothing is done if the network has one of that name.

        Parameters
        ----------
        wrapper : Wrapper
        """
        if wrapper.name in self.names:
            return
        place = ORDER.index(wrapper.name)
        outer = self._taken_off(lambda name: ORDER.index(name) > place)
        try:
            self._apply(wrapper)
        finally:
            for other in outer:
                self._apply(other)

    def remove(self, name: str) -> None:
        """Undo a wrapper; nothing is done if the network has none of that name.

        Parameters
        ----------
        name : str
        """
        if name not in self.names:
            return
        _, *outer = self._taken_off(lambda other: ORDER.index(other) >= ORDER.index(name))
        for wrapper in outer:
            self._apply(wrapper)

    def _apply(self, wrapper: Wrapper) -> None:
        self._applied.append((wrapper, wrapper.apply(self._network)))

    def _taken_off(self, outer: Callable[[str], bool]) -> list[Wrapper]:
        """Undo the outermost wrappers, the last one first; give them from the inside to the outside."""
        taken: list[Wrapper] = []
        while self._applied and outer(self._applied[-1][0].name):
            wrapper, undo = self._applied.pop()
            undo()
            taken.insert(0, wrapper)
        return taken


def replace_forward(module: nn.Module, forward: Callable[..., object]) -> Undo:
    """Give a module another pass than its class has.

    Parameters
    ----------
    module : Module
    forward : callable

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
