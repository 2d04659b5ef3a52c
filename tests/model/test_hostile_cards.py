"""Model files of strangers: cards out of range and weights that are no numbers, each refused in a sentence at once."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from combinations import in_one_case
from safetensors.torch import save_file

from napari_unetvnet.errors import ModelProblem, UserError
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model, load_model
from napari_unetvnet.settings import ComputeSettings, SegmentSettings

SETTINGS = ComputeSettings(device="cpu", precision="fp32")
CARD = ModelCard(
    network="unet_padding",
    option={"width": 2, "depth": 2},
    head="multiclass",
    view="2d",
    values=(0, 1),
    patch=(1, 16, 16),
)
LARGE, NAN, INF = 10**9, float("nan"), float("inf")


@pytest.fixture(scope="module")
def weights():
    return {name: tensor.contiguous() for name, tensor in build_model(CARD, SETTINGS).network.state_dict().items()}


def written(folder, weights, **facts):
    path = folder / "stranger.safetensors"
    save_file(weights, path, {"card": json.dumps({**CARD.model_dump(mode="json"), **facts})})
    return path


def test_the_file_that_the_others_are_made_of_is_loaded(tmp_path, weights):
    assert load_model(written(tmp_path, weights), SETTINGS).card == CARD


@in_one_case(
    "facts, sentence",
    [
        *(({"option": {"width": n}}, "Option width=.* must be 1 to 65536") for n in (LARGE, 0, -1)),
        *(({"option": {"depth": n}}, "Option depth=.* must be 1 to 12") for n in (30, 500, 10**6)),
        ({"option": {"width": 65536, "depth": 12}}, "weights do not fit"),
        ({"option": {"depth": 12}}, "weights do not fit"),
        ({"option": {"width": "9" * 5000}}, "Option width=9{80} must be a whole number"),
        ({"option": {"width": NAN}}, "option.width"),
        ({"network": "os:system"}, "There is no network 'os:system'"),
        ({"network": "backboned_unet", "option": {"weights": "/dev/zero"}}, "option weights, which only a training"),
        ({"context": 10**6, "view": "2.5d"}, "context: .*less than or equal to 64"),
        ({"context": 1}, "view 2d has no neighbour planes"),
        ({"context": 64, "view": "2.5d", "channels": 4096}, "4096 channels of 129 planes are more than 4096"),
        ({"values": [0, 2**70]}, "values.1: .*less than 9223372036854775808"),
        ({"values": list(range(5000))}, "values: .*at most 1000"),
        ({"values": [1, 1]}, "named twice"),
        ({"paint_order": [0, 0]}, "named twice"),
        ({"paint_order": [5]}, "beyond 2 label values"),
        ({"lines": [-1]}, "beyond 2 label values"),
        ({"unit": "x" * 101}, "unit: .*at most 100"),
        ({"channels": LARGE}, "channels: .*less than or equal to 4096"),
        ({"channel_names": ["x" * 2000]}, "channel_names.0: .*at most 1000"),
        ({"patch": [1, LARGE, LARGE]}, "patch.1: .*less than or equal to 65536"),
        *(({"spacing": [size, 1, 1]}, r"spacing.0: ") for size in (NAN, INF, 9e18, 1e-300, 0, -1)),
        ({"scores": {"hold_out_dice": NAN}}, "scores.hold_out_dice: .*finite"),
        ({"steps": 10**40}, "steps: "),
        ({"normalise": "fixed", "normalise_mean": [1e308], "normalise_std": [1]}, "normalise_mean.0: "),
        ({"channel_dropout": NAN}, "channel_dropout: "),
        ({"intensity_range": [[NAN] * 4]}, "intensity_range.0.0: .*finite"),
    ],
)
def test_a_card_out_of_range_is_one_sentence_at_once(tmp_path, weights, facts, sentence):
    path, start = written(tmp_path, weights, **facts), time.process_time()
    with pytest.raises(ModelProblem, match=rf"stranger.safetensors: .*({sentence})") as problem:
        load_model(path, SETTINGS)
    assert time.process_time() - start < 1
    assert len(str(problem.value)) < 1000


def test_a_network_that_does_not_fit_into_memory_is_refused(monkeypatch):
    import psutil

    class Memory:
        available = 1 << 20

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    card = CARD.model_copy(update={"option": {"width": 64}})
    with pytest.raises(UserError, match=r"has weights of 0\.1 GiB, but 0\.0 GiB of memory are free"):
        build_model(card, SETTINGS)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_weights_that_are_no_numbers_are_refused(tmp_path, weights, value):
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    broken = weights | {name: weights[name].clone()}
    broken[name].view(-1)[-1] = value
    with pytest.raises(ModelProblem, match=rf"NaN or infinity in {name}\), so it can find nothing; choose another"):
        load_model(written(tmp_path, broken), SETTINGS)
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in weights.values())


def test_answers_that_are_no_numbers_are_refused(tmp_path, weights):
    huge = {name: torch.full_like(each, 1e38) if each.is_floating_point() else each for name, each in weights.items()}
    model = load_model(written(tmp_path, huge), SETTINGS)
    image = Volume(np.random.default_rng(0).random((1, 2, 20, 20), np.float32))
    with pytest.raises(ModelProblem, match=r"unet_padding answers with NaN or infinity in fp32.* choose another model"):
        list(steps(model, image, SegmentSettings(device="cpu", precision="fp32")))
