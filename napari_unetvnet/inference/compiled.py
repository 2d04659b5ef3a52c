"""Whether the network is compiled for the tiles of a segmentation.

A compiler joins layers so that less is written to memory in between, which takes it about a minute for each size of
tile. So it is asked where a tile's seconds times their number say that it pays, and the whole run is computed the one
way or the other. What it made is only used if it runs and gives the labels that it should. On a GPU, where it is asked
for by the user, torch also records what is to be done for a tile and has it replayed (CUDA graphs); that, and the gain
on a GPU, have not been measured yet.
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

__all__ = ["compile_for_tiles", "compiling_pays", "run_as_written"]

GAIN = {"cpu": 1.1, "cuda": 1.3}
"""How many times faster tiles are expected to be: 1.11 was measured for unet3d and tiles of 64^3 in fp32 on a CPU."""
COST_SECONDS = 90.0
"""What the compiler is expected to take, for that network a minute, with a reserve."""
LEAST_TILES = 100
"""Of fewer tiles not even one is timed."""
AGREEMENT = 0.99
"""Share of the labels of noise, which are close calls, that must be the same."""
COMPILED = "compiled"
COMPILERS = ("c++", "g++", "clang++", "cl")


def compile_for_tiles(
    model: Model, resampled: Volume, tiles: Tiles, settings: SegmentSettings, known: bool | None = None
) -> Generator[Notice, None, bool]:
    """Compile a network, if that is asked for, or pays.

    Parameters
    ----------
    model : Model
        Its network is changed in place; `run_as_written` undoes it.
    resampled : Volume
        As the network sees it.
    tiles : Tiles
    settings : SegmentSettings
    known : bool, optional
        Whether to do so, if that was decided before.

    Yields
    ------
    Notice
        That it is done, or why it is not where it should have been.

    Returns
    -------
    bool
        Whether it is compiled now.
    """
    if not (_wanted(model, resampled, tiles, settings) if known is None else known):
        return False
    asked = settings.compile == "yes"
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), *COMPILERS))):
        if asked:
            yield Notice("The network is not compiled: there is no C++ compiler. Install one, such as g++.")
        return False
    block = _noise(model, tiles, settings)
    expected = _labels(model, block, settings)
    yield Notice("The network is compiled first, which takes about a minute.")
    mode = "reduce-overhead" if asked and model.device.type == "cuda" else None
    wrong = _compile(model, mode, lambda: _labels(model, block, settings), expected)
    if wrong:
        run_as_written(model)
        yield Notice(f"The network could not be compiled ({wrong}); it runs as it is, which only takes longer.")
    return not wrong


def run_as_written(model: Model) -> None:
    """Drop what was compiled.

    Parameters
    ----------
    model : Model
    """
    model.wrappers.remove(COMPILED)


def compiling_pays(model: Model, block: Tensor, count: int) -> bool:
    """Whether compiling a network takes less time than it saves.

    Parameters
    ----------
    model : Model
    block : Tensor of shape (B, C, Z, Y, X)
        Tiles with their margins, to be timed.
    count : int
        How many tiles there are.

    Returns
    -------
    bool
    """
    saved = 1 - 1 / GAIN.get(model.device.type, 1.0)
    return _seconds(model, block) / len(block) * count * saved > COST_SECONDS


def _wanted(model: Model, resampled: Volume, tiles: Tiles, settings: SegmentSettings) -> bool:
    """Whether to compile; of itself not where tiles may be left out or have several sizes."""
    if settings.compile != "auto":
        return settings.compile == "yes"
    parts = (settings.box_start, settings.box_stop, settings.skip_constant, getattr(settings, "mask", None))
    if any(parts) or settings.view == "multi-view":
        return False
    turns = choose_orientations(model, tiles.size, resampled.spacing, settings)
    count = prod(len(axis) for axis in tiles.origins) * len(turns)
    return count >= LEAST_TILES and compiling_pays(model, _noise(model, tiles, settings), count)


def _noise(model: Model, tiles: Tiles, settings: SegmentSettings) -> Tensor:
    """Make as many tiles with their margins as there are at once, (B, C, Z, Y, X)."""
    size = [n + sum(sides) for n, sides in zip(tiles.size, model.margin, strict=True)]
    batch = min(settings.batch, len(tiles.places))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, model.card.channels, *size, generator=generator).to(model.device)


@torch.inference_mode()
def _seconds(model: Model, block: Tensor) -> float:
    """Time a block, the second time."""
    seconds = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        model.logits(block)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds = time.perf_counter() - begun
    return seconds


@torch.inference_mode()
def _labels(model: Model, block: Tensor, settings: SegmentSettings) -> Tensor:
    """Label tiles with their margins (B, C, Z, Y, X)."""
    return torch.stack([label_values(logits, model.card) for logits in model.logits(block, cascade=settings.cascade)])


def _compile_forward(network: nn.Module, mode: str | None) -> Callable[[], None]:
    """Put a compiled pass in the place of a network's own; give what undoes it."""
    return replace_forward(network, torch.compile(network.forward, dynamic=False, mode=mode))


def _compile(model: Model, mode: str | None, labels: Callable[[], Tensor], expected: Tensor) -> str:
    """Compile a network and try it; say what is wrong with it, if anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a compiler, which nobody here can mend
            model.wrappers.add(Wrapper(COMPILED, partial(_compile_forward, mode=mode)))
            for _ in range(3):  # a graph is recorded in the second and replayed in the third
                found = labels()
    except Exception as error:  # noqa: BLE001 (whatever goes wrong in a compiler, there is a way without it)
        return (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
    share = float((found == expected).float().mean())
    return "" if share >= AGREEMENT else f"only {100 * share:.3g} % of the labels are the same"
