"""The number format is the fastest that says what fp32 says of the image itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_inference_orientations import model_of
from test_inference_segment import CPU, RAW, Pointwise

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.intensity import Intensity
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import choose_precision, precision_check
from napari_unetvnet.settings import SegmentSettings

AUTO = SegmentSettings()
FORMATS = {torch.bfloat16: "bf16", torch.float16: "fp16"}


class Torn(Pointwise):
    """Says the opposite of voxels above a limit, another one in each number format, and remembers what it saw."""

    limits: dict[str, float] = {}  # noqa: RUF012

    def forward(self, x):
        self.seen = x
        name = FORMATS[torch.get_autocast_dtype("cpu")] if torch.is_autocast_enabled("cpu") else "fp32"
        return super().forward(torch.where(x > self.limits.get(name, np.inf), -x, x))


def torn(formats, monkeypatch, view="2d", **limits):
    monkeypatch.setattr(precision_check, "faster_formats", lambda _: formats)
    model = model_of(Torn, view)
    model.network.limits = limits
    return model


def image(bright=0):
    """A plane of 400 x 400 with so many voxels of 9 in the middle of nothing, the rest is 1."""
    data = np.ones((1, 1, 400, 400), np.float32)
    data[0, 0, 140, 140 : 140 + bright] = 9
    return Volume(data)


@pytest.mark.parametrize(("bright", "precision"), [(0, "bf16"), (16, "bf16"), (17, "fp32")])
def test_one_label_in_a_thousand_may_differ(monkeypatch, bright, precision):
    model = torn(("bf16",), monkeypatch, bf16=5)  # of 128 x 128 voxels 16 are a little less than a thousandth
    told = choose_precision(model, image(bright), AUTO, RAW)
    assert model.precision == precision
    only = "only 99.896 % of the labels in bf16 agree with fp32, so fp32 is used, which is slower."
    assert told == ("" if precision == "bf16" else f"On a part of the image {only}")


def test_the_next_format_is_asked_if_the_first_is_not_good_enough(monkeypatch):
    model = torn(("bf16", "fp16"), monkeypatch, bf16=0)
    told = choose_precision(model, image(), AUTO, RAW)
    assert model.precision == "fp16"
    assert "only 0 % of the labels in bf16 agree" in told
    assert "fp16 is used" in told
    model = torn(("bf16", "fp16"), monkeypatch, bf16=0, fp16=0)
    assert "in bf16 and 0 % of the labels in fp16" in choose_precision(model, image(), AUTO, RAW)
    assert model.precision == "fp32"


def test_a_small_image_is_segmented_in_fp32_without_asking(monkeypatch):
    model = torn(("bf16",), monkeypatch)
    model.move_to(CPU, "bf16")
    assert choose_precision(model, Volume(np.zeros((1, 5, 128, 128))), AUTO, RAW) == ""
    assert model.precision == "fp32"
    assert not hasattr(model.network, "seen")


def test_where_nothing_is_faster_nothing_is_asked(monkeypatch):
    model = torn((), monkeypatch)
    assert choose_precision(model, image(), AUTO, RAW) == ""
    assert model.precision == "fp32"
    assert not hasattr(model.network, "seen")


@pytest.mark.parametrize("view", ["2d", "3d"])
def test_the_part_that_is_asked_about_holds_something_and_is_normalised_like_the_image(monkeypatch, view):
    model = torn(("bf16",), monkeypatch, view)
    data = np.zeros((1, 70, 200, 210), np.float32)
    data[0, 34:36, 190, 150] = 8
    doubled = Intensity(np.zeros(1, np.float32), np.full(1, 0.5, np.float32))
    choose_precision(model, Volume(data), AUTO, doubled)
    assert model.network.seen.shape[2:] == ((128, 128) if view == "2d" else (32, 64, 64))
    assert model.network.seen.max() == 16


def test_an_image_at_another_voxel_size_is_asked_about_as_the_network_sees_it(monkeypatch):
    model = torn(("bf16",), monkeypatch)
    model.card = model.card.model_copy(update={"spacing": (1.0, 1.0, 1.0), "unit": "micrometer"})
    volume = Volume(np.ones((1, 1, 200, 200)), Geometry((1.0, 2.0, 2.0), "micrometer"))
    choose_precision(model, volume, AUTO, RAW)
    assert model.network.seen.shape[2:] == (128, 128)
    assert model.precision == "bf16"


def test_what_does_not_fit_is_refused_in_the_usual_words(monkeypatch):
    with pytest.raises(DataProblem, match=r"1 channel.*has 2"):
        choose_precision(torn(("bf16",), monkeypatch), Volume(np.zeros((2, 1, 400, 400))), AUTO, RAW)
