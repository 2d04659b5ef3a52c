"""Make the figures of docs/how-to/inspect.md: train a small model of each kind on the sample, and draw its maps.

Takes a few minutes on a CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from napari_unetvnet.cli.main import main as command
from napari_unetvnet.images.io import read_volume
from napari_unetvnet.widgets.sample_data import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

IMAGES = Path(__file__).parent.parent / "docs" / "images"
CUT = (slice(272, 464), slice(288, 480))
"""Rows and columns that are drawn."""
KINDS: dict[str, tuple[str, ...]] = {
    "heatmaps": ("--network", "backboned_unet", "--option", "encoder=resnet18", "--option", "width=16"),
    "attention": ("--network", "attention_unet", "--option", "width=8"),
    "reconstruction": (
        "--network", "segresnet_vae", "--option", "width=8", "--option", "vae=paper", "--option", "patch_y=64",
        "--option", "patch_x=64", "--patch", "1", "64", "64", "--loss", "dice_ce + 20*vae", "--steps", "600",
    ),
    "levels": ("--network", "unetpp", "--option", "width=8", "--option", "norm=true", "--option", "depth=4"),
}  # fmt: skip
SHOWN = {
    "heatmaps": ("encoder1", "encoder3", "encoder5", "decoder2", "decoder0"),
    "attention": ("level0", "level1", "level2", "level3"),
    "reconstruction": ("image",),
    "levels": ("branch1", "branch2", "branch3", "main"),
}
COLOURS = {"heatmaps": "inferno", "attention": "viridis", "reconstruction": "gray", "levels": "magma"}


def main() -> None:
    """Make all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=IMAGES, help="Folder for the figures.")
    parser.add_argument("--steps", type=int, default=150, help="Steps of each training.")
    parser.add_argument("--what", nargs="*", default=list(KINDS), choices=list(KINDS), help="Which figures.")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for what in parsed.what:
            draw(what, inspected(Path(folder), what, parsed.steps)).save(
                parsed.output / f"inspect-{what}.png", optimize=True
            )


def inspected(folder: Path, what: str, steps: int) -> Path:
    """Train a model and inspect the sample image.

    Returns
    -------
    Path
        The folder of its maps.
    """
    image, labels = (str(SAMPLES / name) for name in ("nuclei.tif", "nuclei_objects.tif"))
    model, maps = str(folder / f"{what}.safetensors"), folder / what
    words = ("train", "--image", image, "--label", labels, "--label-values", "objects", "--objects-as", "foreground")
    run(*words, "--steps", str(steps), *KINDS[what], "--output", model, "--run", str(folder))
    run("inspect", image, "--model", model, "--what", what, "--output", str(maps), "--run", str(folder))
    return maps


def run(*words: str) -> None:
    """Run a command.

    Raises
    ------
    SystemExit
        If it fails.
    """
    sys.stderr.write(" ".join(words) + "\n")
    if status := command(words):
        raise SystemExit(status)


def draw(what: str, maps: Path) -> Image.Image:
    """Draw a part of the image and of its maps beside each other.

    Returns
    -------
    PIL.Image.Image
    """
    raw = cut(read_volume(SAMPLES / "nuclei.tif").data[0])
    low, high = np.percentile(raw, [1, 99.8])
    tiles = [coloured(raw, low, high, "gray", "image")]
    rows = {row["name"]: row for row in json.loads((maps / "index.json").read_text())["maps"]}
    for name in SHOWN[what]:
        data = read_volume(maps / rows[name]["file"]).data
        ends = (low, high) if what == "reconstruction" else (0.0, 1.0)
        if what == "heatmaps":
            ends = np.percentile(cut(data[-1]), [1, 99.8])
        tiles.append(coloured(cut(data[-1]), *ends, COLOURS[what], what if name == "image" else name))
    return beside(tiles)


def cut(planes: Any) -> NDArray[np.float32]:
    """Cut the part that is drawn out of the only plane."""
    return np.asarray(planes[0], np.float32)[CUT]


def coloured(values: NDArray[np.float32], low: float, high: float, colours: str, title: str) -> Image.Image:
    """Draw a map with its name above it."""
    from napari.utils.colormaps import ensure_colormap

    shares = ((values - low) / max(high - low, 1e-6)).clip(0, 1)
    pixels = ensure_colormap(colours).map(shares.ravel()).reshape(*shares.shape, 4)[..., :3]
    drawn = Image.fromarray((255 * pixels).astype(np.uint8))
    tile = Image.new("RGB", (drawn.width, drawn.height + 16), "white")
    tile.paste(drawn, (0, 16))
    ImageDraw.Draw(tile).text((2, 2), title, "black")
    return tile


def beside(tiles: Sequence[Image.Image]) -> Image.Image:
    """Put pictures of one height beside each other."""
    gap = 4
    whole = Image.new("RGB", (sum(tile.width + gap for tile in tiles) - gap, tiles[0].height), "white")
    for number, tile in enumerate(tiles):
        whole.paste(tile, (number * (tile.width + gap), 0))
    return whole


if __name__ == "__main__":
    main()
