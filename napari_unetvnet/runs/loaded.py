"""Models that stay loaded while the images of a folder are segmented one after another."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from napari_unetvnet.conventions import OptionValue
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import ComputeSettings

__all__ = ["keeping_models", "loaded_model"]

_kept: ContextVar[dict[str, Model] | None] = ContextVar("kept", default=None)


@contextmanager
def keeping_models() -> Iterator[None]:
    """Keep each model that `loaded_model` loads until the block ends.

    Yields
    ------
    None
    """
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def loaded_model(path: Path, settings: ComputeSettings, option: Mapping[str, OptionValue] | None = None) -> Model:
    """Load a model, or give the one that is kept, as it was when it was loaded.

    Parameters
    ----------
    option : mapping of str to value, optional
        Options of the network to change.

    Returns
    -------
    Model
    """
    from napari_unetvnet.inference.compiled import remove_compilation
    from napari_unetvnet.model.device import choose_device
    from napari_unetvnet.model.model import load_model

    kept, state = _kept.get(), path.stat()
    key = repr((str(path.absolute()), state.st_size, state.st_mtime_ns, settings.device, settings.precision, option))
    if kept is None or key not in kept:
        model = load_model(path, settings, option)
        if kept is not None:
            kept[key] = model
        return model
    model = kept[key]
    remove_compilation(model)  # it is for the tiles of one image
    model.move_to(*choose_device(settings))
    return model
