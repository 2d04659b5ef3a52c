"""Compile the network for the tiles of a segmentation, where that saves time.

The compiler fuses layers, so that fewer intermediate results are written to memory. This takes about a minute for each
tile size, so the network is compiled only if the time for all tiles is long enough, and the same for the whole run. The
compiled network is used only if it runs and reproduces the labels. On a GPU, if the user asks for compilation, torch
also records CUDA graphs; these, and the gain on a GPU, have not been measured yet.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.events import Notice
from napari_unetvnet.inference.labels import label_values
from napari_unetvnet.inference.orientations import choose_orientations
from napari_unetvnet.model.wrappers import Wrapper, replace_forward

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor, nn

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference.tiles import Tiles
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["compile_for_tiles", "compiling_pays", "remove_compilation"]

GAIN = {"cpu": 1.1, "cuda": 1.3}
"""Expected speed-up. On a CPU, 1.11 was measured for unet3d and tiles of 64^3 in fp32."""
COST_SECONDS = 90.0
"""Expected time for compilation: a minute for that network, with a reserve."""
LEAST_TILES = 100
"""With fewer tiles not even one is timed."""
AGREEMENT = 0.99
"""Fraction of the labels that must agree. They are labels of noise, so many voxels are near a decision boundary."""
COMPILED = "compiled"
COMPILERS = ("c++", "g++", "clang++", "cl")


def compile_for_tiles(
    model: Model, resampled: Volume, tiles: Tiles, settings: SegmentSettings, decision: bool | None = None
) -> Generator[Notice, None, bool]:
    """Compile a network if the settings ask for it, or if it saves time.

    Parameters
    ----------
    model : Model
        Its network is changed in place; `remove_compilation` undoes it.
    resampled : Volume
        At the voxel size of the training.
    decision : bool, optional
        Whether to compile, if that was decided before.

    Yields
    ------
    Notice
        That the network is being compiled, or why it could not be.

    Returns
    -------
    bool
        Whether the network is compiled now.
    """
    if not (_worthwhile(model, resampled, tiles, settings) if decision is None else decision):
        return False
    requested = settings.compile == "yes"
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), *COMPILERS))):
        if requested:
            yield Notice("The network is not compiled: there is no C++ compiler. Install one, such as g++.")
        return False
    block = _noise(model, tiles, settings)
    expected = _labels(model, block, settings)
    yield Notice("The network is compiled first, which takes about a minute.")
    mode = "reduce-overhead" if requested and model.device.type == "cuda" else None
    problem = _compile(model, mode, lambda: _labels(model, block, settings), expected)
    if problem:
        remove_compilation(model)
        yield Notice(f"The network could not be compiled ({problem}); it runs uncompiled, which only takes longer.")
    return not problem


def remove_compilation(model: Model) -> None:
    """Remove a compiled forward pass."""
    model.wrappers.remove(COMPILED)


def compiling_pays(model: Model, block: Tensor, count: int) -> bool:
    """Whether compiling a network takes less time than it saves.

    Parameters
    ----------
    block : Tensor of shape (B, C, Z, Y, X)
        Tiles with their margins, to be timed.
    count : int
        Number of tiles.

    Returns
    -------
    bool
    """
    saved = 1 - 1 / GAIN.get(model.device.type, 1.0)
    return _seconds(model, block) / len(block) * count * saved > COST_SECONDS


def _worthwhile(model: Model, resampled: Volume, tiles: Tiles, settings: SegmentSettings) -> bool:
    """Whether to compile. With "auto", not where tiles may be skipped or have several sizes."""
    if settings.compile != "auto":
        return settings.compile == "yes"
    names = ("box_start", "box_stop", "skip_constant", "mask", "region_model")
    selection = [getattr(settings, name, None) for name in names]
    if any(selection) or settings.view == "multi-view":
        return False
    orientations = choose_orientations(model, tiles.size, resampled.spacing, settings)
    count = prod(len(axis) for axis in tiles.origins) * len(orientations)
    return count >= LEAST_TILES and compiling_pays(model, _noise(model, tiles, settings), count)


def _noise(model: Model, tiles: Tiles, settings: SegmentSettings) -> Tensor:
    """Make one batch of tiles of noise with their margins, (B, C, Z, Y, X)."""
    size = [n + sum(sides) for n, sides in zip(tiles.size, model.margin, strict=True)]
    batch = min(settings.batch, len(tiles.places))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, model.card.channels, *size, generator=generator).to(model.device)


@torch.inference_mode()
def _seconds(model: Model, block: Tensor) -> float:
    """Time the second pass of a block."""
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        model.logits(block)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds = time.perf_counter() - began
    return seconds


@torch.inference_mode()
def _labels(model: Model, block: Tensor, settings: SegmentSettings) -> Tensor:
    """Label tiles with their margins (B, C, Z, Y, X)."""
    return torch.stack([label_values(logits, model.card) for logits in model.logits(block, cascade=settings.cascade)])


def _compile_forward(network: nn.Module, mode: str | None) -> Callable[[], None]:
    """Replace the forward pass of a network by a compiled one; return the function that undoes it."""
    return replace_forward(network, torch.compile(network.forward, dynamic=False, mode=mode))


def _compile(model: Model, mode: str | None, labels: Callable[[], Tensor], expected: Tensor) -> str:
    """Compile a network and try it; return the problem, or an empty string."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, which the user cannot act on
            model.wrappers.add(Wrapper(COMPILED, partial(_compile_forward, mode=mode)))
            for _ in range(3):  # a CUDA graph is recorded in the second pass and replayed in the third
                compiled_labels = labels()
    except Exception as error:  # noqa: BLE001 (whatever fails in a compiler, the network runs without it)
        return (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
    share = float((compiled_labels == expected).float().mean())
    return "" if share >= AGREEMENT else f"only {100 * share:.3g} % of the labels agree"
