"""Memory fallback: a computation that does not fit into memory is repeated in a cheaper way, with a notice.

Training and inference each declare options, which say how to compute, and a list of steps. A step returns cheaper
options, or None if it cannot save anything; the first step that returns options is taken. Options that worked are
cached for the machine, and the next computation of the same kind starts with them; but not those of the CPU, because a
full GPU may be free again. A run stores its options in its folder or checkpoint, so that it resumes with them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import torch

from napari_unetvnet.errors import FileProblem, OutOfMemory
from napari_unetvnet.events import Notice
from napari_unetvnet.json_files import read_sealed, validated, write_sealed
from napari_unetvnet.model.device import FALLBACK, device_name, lacks_memory, recall, remember
from napari_unetvnet.temporary import remove

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from napari_unetvnet.model.model import Model

__all__ = ["Attempt", "MemoryFallback", "Options"]

ADVICE = "remove it to continue as the settings say, or start a new run"


@dataclass(frozen=True)
class Options:
    """How a computation is made to fit into memory: values that JSON holds, and tuples of them.

    Parameters
    ----------
    cpu : bool
        Whether to use the CPU instead of the GPU.
    """

    cpu: bool = False

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Create options from the result of `asdict`.

        Returns
        -------
        Options

        Raises
        ------
        FileProblem
            If they are others, or out of range.
        """
        return validated(json.dumps(values), cls, "The options of the memory fallback are damaged", ADVICE)


SomeOptions = TypeVar("SomeOptions", bound=Options)


class Attempt:
    """A context that may run out of memory: then `failed` is true after it. Other exceptions propagate."""

    failed = False

    def __enter__(self) -> Self:
        """Enter the context."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Suppress an exception that means that memory was exhausted.

        The exception keeps its frames alive, and these their tensors, so it must be freed before the next attempt.

        Returns
        -------
        bool
            Whether it is suppressed.
        """
        self.failed = error is not None and lacks_memory(error)
        return self.failed


class MemoryFallback(Generic[SomeOptions]):
    """The options of a computation, and the steps to take if it does not fit into memory.

    Parameters
    ----------
    model : Model
        Moved to the CPU if the options say so.
    options : Options
        From the settings.
    steps : sequence of callable
        Each takes options and returns cheaper ones with the end of a sentence about the change, or None. In order of
        their cost.
    apply : callable
        Applies options to everything else; idempotent.
    kind : str
        All that the memory depends on, besides device and number format.
    smallest : callable
        Describes the smallest computation, such as "one patch of 1 x 8 x 8 voxels".
    file : Path, optional
        File of the run for the options.
    """

    def __init__(
        self,
        model: Model,
        options: SomeOptions,
        steps: Sequence[Callable[[SomeOptions], tuple[SomeOptions, str] | None]],
        apply: Callable[[SomeOptions], None],
        kind: str,
        smallest: Callable[[], str],
        file: Path | None = None,
    ) -> None:
        self.options, self._initial = options, options
        self._model, self._steps, self._apply, self._smallest = model, steps, apply, smallest
        self._kind = f"{device_name(model.device)} | {model.precision} | {kind}"
        self._file, self._changed = file, False

    def attempt(self) -> Attempt:
        """Give a context for a computation that may not fit."""
        return Attempt()

    def next(self, subject: str, since: str = "") -> Notice:
        """Take the next step.

        Parameters
        ----------
        subject : str
            What did not fit: the start of a sentence.
        since : str
            From when on the change applies, such as "from plane 8 on ".

        Returns
        -------
        Notice
            About the change.

        Raises
        ------
        OutOfMemory
            If no step is left.
        """
        for step in self._steps:
            if (cheaper := step(self.options)) is not None:
                options, text = cheaper
                self.use(options)
                self._changed = True
                torch.cuda.empty_cache()
                return Notice(f"{subject} did not fit into the memory of the device; {since}{text}.")
        raise OutOfMemory(
            f"Not even {self._smallest()} fits into the memory of {self._model.device}; close other programs, or "
            "choose a smaller model."
        )

    def use(self, options: SomeOptions) -> None:
        """Use options from now on."""
        self.options = options
        if options.cpu:
            self._model.move_to(torch.device("cpu"), "fp32")
        self._apply(options)
        if self._file is not None:
            write_sealed(self._file, asdict(options))

    def worked(self) -> None:
        """Cache the options for the next computation of this kind, if a step changed them; call on success."""
        if self._changed and not self.options.cpu and self.options != self._initial:
            remember(FALLBACK, self._kind, asdict(self.options))
        self._changed = False

    def remembered(self) -> SomeOptions | None:
        """Give the cached options of the last computation of this kind on this device.

        Returns
        -------
        Options or None
            None if there are none.
        """
        values = recall(FALLBACK, self._kind)
        try:
            return None if values is None else type(self._initial).from_json(values)
        except FileProblem:  # of another version: start from the settings
            return None

    def saved(self) -> SomeOptions | None:
        """Read the options of the run.

        Returns
        -------
        Options or None
            None if they never differed from the settings.

        Raises
        ------
        FileProblem
            If the file is damaged.
        """
        if self._file is None or not self._file.exists():
            return None
        return read_sealed(self._file, type(self._initial), ADVICE)

    def forget(self) -> None:
        """Remove the options of an earlier run in the same folder."""
        if self._file is not None:
            remove(self._file)
