"""Memory fallback: where a computation does not fit into memory, the next cheaper way to compute it is taken, and told.

Training and inference each declare options, which say how to compute, and a list of steps. A step makes options
cheaper, or gives None where it has nothing to save; the first step that has something is the next. What worked is
remembered for the machine, and the next computation of the same kind begins with it; but not on the CPU, since a full
GPU may be free again. A run has its options in its folder or in its checkpoint, so that what is resumed is computed as
before.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import torch

from napari_unetvnet.errors import FileProblem, OutOfMemory
from napari_unetvnet.events import Notice
from napari_unetvnet.files import read_json, remove, write_json
from napari_unetvnet.model.device import FALLBACK, device_name, lacks_memory, recall, remember

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
        Whether the GPU was given up.
    """

    cpu: bool = False

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Read what `asdict` gave.

        Parameters
        ----------
        values : what JSON holds

        Returns
        -------
        Options

        Raises
        ------
        ValueError
            If these are not the fields.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or set(values) != set(names):
            raise ValueError(f"expected {', '.join(names)}, not {values}")
        options: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**options)


SomeOptions = TypeVar("SomeOptions", bound=Options)


class Attempt:
    """A block that may not fit into memory: if so, `failed` is true after it. Any other exception comes through."""

    failed = False

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Drop an exception that says that memory does not suffice.

        It refers to the frames in which it was raised, and these to their tensors, so it must be gone before the next
        attempt.

        Returns
        -------
        bool
            Whether it is dropped.
        """
        self.failed = error is not None and lacks_memory(error)
        return self.failed


class MemoryFallback(Generic[SomeOptions]):
    """How a computation is made to fit into memory, and what is next if it does not.

    Parameters
    ----------
    model : Model
        Is moved to the CPU by options that say so.
    options : Options
        As the settings say.
    steps : sequence of callable
        Each takes options and gives cheaper ones with the end of a sentence that tells what is changed, or None. The
        one that costs least comes first.
    apply : callable
        Changes whatever else must be changed to compute as options say; doing so twice is as once.
    kind : str
        What the needed memory depends on besides device and number format.
    smallest : callable
        Names the least that can be computed, such as "one patch of 1 x 8 x 8 voxels".
    file : Path, optional
        Of the run, to keep the options in.
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
        self.options, self._asked = options, options
        self._model, self._steps, self._apply, self._smallest = model, steps, apply, smallest
        self._kind = f"{device_name(model.device)} | {model.precision} | {kind}"
        self._file, self._new = file, False

    def attempt(self) -> Attempt:
        """Give a context for a computation that may not fit."""
        return Attempt()

    def next(self, subject: str, since: str = "") -> Notice:
        """Take the next step.

        Parameters
        ----------
        subject : str
            What did not fit: the beginning of a sentence.
        since : str
            From when on something is changed, such as "from plane 8 on ".

        Returns
        -------
        Notice
            What is changed.

        Raises
        ------
        OutOfMemory
            If no step has anything to save.
        """
        for step in self._steps:
            if (cheaper := step(self.options)) is not None:
                options, text = cheaper
                self.use(options)
                self._new = True
                torch.cuda.empty_cache()
                return Notice(f"{subject} did not fit into the memory of the device; {since}{text}.")
        raise OutOfMemory(
            f"Not even {self._smallest()} fits into the memory of {self._model.device}; close other programs, or "
            "choose a smaller model."
        )

    def use(self, options: SomeOptions) -> None:
        """Compute as options say from now on.

        Parameters
        ----------
        options : Options
        """
        self.options = options
        if options.cpu:
            self._model.move_to(torch.device("cpu"), "fp32")
        self._apply(options)
        if self._file is not None:
            write_json(self._file, asdict(options))

    def worked(self) -> None:
        """Remember the options for the next computation of the kind, if a step led to them; to be called on success."""
        if self._new and not self.options.cpu and self.options != self._asked:
            remember(FALLBACK, self._kind, asdict(self.options))
        self._new = False

    def remembered(self) -> SomeOptions | None:
        """Give what worked for the last computation of the kind on this device.

        Returns
        -------
        Options or None
            None if nothing is known.
        """
        known = recall(FALLBACK, self._kind)
        try:
            return None if known is None else type(self._asked).from_json(known)
        except ValueError:  # of another version: what fits is tried anew
            return None

    def saved(self) -> SomeOptions | None:
        """Read the options of the run.

        Returns
        -------
        Options or None
            None if it never had other ones than the settings say.

        Raises
        ------
        FileProblem
            If its file is damaged.
        """
        if self._file is None or not self._file.exists():
            return None
        try:
            return type(self._asked).from_json(read_json(self._file, dict, ADVICE))
        except ValueError as error:
            raise FileProblem(f"{self._file} is of another version ({error}); {ADVICE}.") from None

    def forget(self) -> None:
        """Drop what an earlier run in the same folder, which begins anew, had to do."""
        if self._file is not None:
            remove(self._file)
