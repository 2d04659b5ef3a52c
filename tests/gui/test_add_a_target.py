"""What the page on adding a kind of target promises: its files and rows are all that a new map and its loss need."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import TARGET_MAPS
from napari_unetvnet.events import StepDone
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.losses import LOSSES
from napari_unetvnet.runs.folder import training_files
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.training import loop
from napari_unetvnet.widgets.layers import Channel, Snapshot
from napari_unetvnet.widgets.preview import targets_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-target.md"
MAP, ROW, LOSS, LOSS_ROW = map(dedent, re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
CHOSEN = {"loss": "dice + far_brier(slope=0.5)", "label_values": "objects", "head": "binary"}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Follows the page; gives what computes the map, and the list of what the loss gets."""
    rows = re.sub(r'"napari_unetvnet[\w.]*\.(\w+:\w+)"', r'"\1"', ROW + LOSS_ROW)  # the modules stand on top here
    files = {
        "border_distance": MAP,
        "far_brier": LOSS,
        "page_rows": "from napari_unetvnet.data.targets import TargetMap\n" + rows,
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    border_distance, far_brier, page_rows = map(importlib.import_module, files)
    (losses,) = page_rows.PURPOSES.values()
    for table, row in ((TARGET_MAPS, page_rows.TARGET_MAPS), (LOSSES._members, losses)):
        for name, value in row.items():
            monkeypatch.setitem(table, name, value)
    received, formula = [], far_brier.far_brier

    def watched(prepared, **options):
        received.append(prepared)
        return formula(prepared, **options)

    monkeypatch.setattr(far_brier, "far_brier", watched)
    yield (lambda labels: border_distance.border_distance(labels, None, None)), received
    for name in files:
        del sys.modules[name]


def painted(size=64):
    labels = np.zeros((1, 1, size, size), np.uint8)
    labels[..., 4:20, 6:30], labels[..., 30:58, 20:36], labels[..., 24:40, 44:60] = 1, 2, 3
    return labels


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_the_loss_gets_the_map_of_its_patch(page, tmp_path, monkeypatch, augment):
    compute, received = page
    monkeypatch.setattr("napari_unetvnet.data.augment.batch.change_intensities", lambda *_: None)
    monkeypatch.setattr("napari_unetvnet.training.step.AUGMENTATION_START", 1e-9)  # full strength from step 2
    labels = painted()
    whole = compute(labels)
    # The network sees the number of each voxel and, as another channel, the map itself.
    image = np.stack([np.arange(whole.size, dtype=np.float32).reshape(whole.shape), whole])
    chosen = CHOSEN | {
        "augment": augment, "mirror_axes": ["y", "x"], "normalise": "none", "option": {"width": 4, "depth": 2},
        "patch": (1, 32, 32), "batch": 8, "gradient_accumulation": 2, "device": "cpu", "steps": 2, "hold_out": 0,
    }  # fmt: skip
    folder = tmp_path / "run"
    folder.mkdir()
    pair = Pair(Volume(image), Volume(labels))
    events = list(loop.steps([pair], checked(TrainSettings, chosen), training_files(folder)))
    assert len([event for event in events if isinstance(event, StepDone)]) == 2
    assert [len(part.image) for part in received] == [4, 4, 4, 4]
    for part in received:
        seen, distance = part.maps["border_distance"][:, 0], part.image[:, 1]
        assert seen.shape == distance.shape
        if augment == "light":  # mirrored: voxels keep their numbers
            expected = torch.from_numpy(whole.ravel())[part.image[:, 0].long()]
            assert torch.equal(seen, expected)
    if augment == "light":
        mirrored = [(part.image[:, 0, :, 0, 0] > part.image[:, 0, :, 0, -1]).flatten() for part in received]
        assert 0 < torch.cat(mirrored).sum() < 16
    else:  # enlarged by one factor in each patch
        factors = torch.cat([_factors(part) for part in received[2:]])
        assert (factors - 1).abs().max() > 0.05


def _factors(part):
    """By how much the map of each patch exceeds what the image shows of it; the same in all its voxels."""
    inside = part.labels != IGNORE
    factors = []
    for seen, shown, known in zip(part.maps["border_distance"][:, 0], part.image[:, 1], inside, strict=True):
        ratio = (seen / shown)[known & (shown > 2)]
        factors.append(ratio.median())
        assert ((ratio / factors[-1] - 1).abs() < 0.01).float().mean() > 0.9
    return torch.stack(factors)


def test_the_panel_shows_the_map(page):
    compute, _ = page
    labels = painted()[0].repeat(6, axis=0)
    taken = Snapshot((), (Channel(labels, name="strokes"),), (1, 1, 1), "pixel")
    shown, target = targets_of(taken, checked(TrainSettings, CHOSEN), slice(1, 3))
    assert (shown.name, shown.kind, shown.low, shown.top) == ("target: border_distance", "weights", 0, 8)
    np.testing.assert_array_equal(shown.data, compute(labels[None])[1:3])
    assert target.name == "target"
