"""A network that is compiled for its tiles: when, that it says the same, and that nothing is lost where it fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_inference_fallback import a_model, noise, plain, run_folder, segmented, starved, stopped_after

from napari_unetvnet import runs
from napari_unetvnet.events import Notice
from napari_unetvnet.inference import compiled as compiled_module
from napari_unetvnet.model.device import autotuned_convolutions
from napari_unetvnet.runs.folder import LABELS

FIRST = "The network is compiled first, which takes about a minute."


@pytest.fixture
def volume():
    return noise()


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that only counts how often what it made is called; "change" alters what that gives."""
    called = {"times": 0, "modes": [], "change": lambda logits: logits}

    def make(forward, **chosen):
        called["modes"].append(chosen)

        def run(x):
            called["times"] += 1
            return called["change"](forward(x))

        return run

    monkeypatch.setattr(torch, "compile", make)
    monkeypatch.setattr(compiled_module.shutil, "which", lambda name: "/usr/bin/c++")
    return called


def test_asked_for_it_runs_compiled_and_says_so(volume, compiler):
    labels, told = segmented(a_model(), volume, compile="yes")
    assert [text for _, text in told] == [FIRST]
    assert compiler["modes"] == [{"dynamic": False, "mode": None}]
    assert compiler["times"] > 3
    np.testing.assert_array_equal(labels, plain(a_model(), volume))


def test_it_can_be_forbidden_and_does_not_pay_for_few_tiles(volume, compiler, monkeypatch):
    monkeypatch.setattr(compiled_module, "COST_SECONDS", 0)
    segmented(a_model(), volume, compile="no")
    monkeypatch.setattr(compiled_module, "LEAST_TILES", 1000)
    segmented(a_model(), volume)
    assert compiler["modes"] == []


@pytest.mark.parametrize(("seconds", "pays"), [(0.9, False), (1.1, True)])
def test_it_pays_where_it_saves_more_than_it_takes(monkeypatch, seconds, pays):
    monkeypatch.setattr(compiled_module, "COST_SECONDS", 60)
    monkeypatch.setitem(compiled_module.GAIN, "cpu", 1.5)  # a third is saved
    monkeypatch.setattr(compiled_module, "_seconds", lambda model, block: 2 * seconds)
    assert compiled_module.compiling_pays(a_model(), torch.zeros(2, 1, 8, 8, 8), 180) is pays


def test_left_to_the_estimate_it_is_compiled_where_that_pays(volume, compiler, monkeypatch):
    monkeypatch.setattr(compiled_module, "LEAST_TILES", 10)
    monkeypatch.setattr(compiled_module, "_seconds", lambda model, block: 1e5)
    labels, told = segmented(a_model(), volume)
    assert [text for _, text in told] == [FIRST]
    np.testing.assert_array_equal(labels, plain(a_model(), volume))
    for part in ({"box_stop": (9, 9, 9)}, {"skip_constant": True}):  # how many tiles there are is not known
        assert segmented(a_model(), volume, **part)[1] == []


def failing(logits):
    raise TypeError("no such instruction\nand much more")


def opposite(logits):
    return -logits


@pytest.mark.parametrize(("change", "why"), [(failing, "no such instruction"), (opposite, "labels agree")])
def test_what_fails_or_says_something_else_is_not_used(volume, compiler, change, why):
    compiler["change"] = change
    labels, told = segmented(a_model(), volume, compile="yes")
    assert told[1][1].startswith("The network could not be compiled (")
    assert why in told[1][1]
    assert "much more" not in told[1][1]
    np.testing.assert_array_equal(labels, plain(a_model(), volume))


@pytest.mark.parametrize(("asked", "told"), [("yes", ["The network is not compiled"]), ("auto", [])])
def test_without_a_cpp_compiler_it_runs_as_it_is(volume, compiler, monkeypatch, asked, told):
    monkeypatch.setattr(compiled_module.shutil, "which", lambda name: None)
    monkeypatch.setattr(compiled_module, "LEAST_TILES", 1)
    monkeypatch.setattr(compiled_module, "compiling_pays", lambda *_: True)
    assert [text.split(":")[0] for _, text in segmented(a_model(), volume, compile=asked)[1]] == told
    assert compiler["modes"] == []


def test_smaller_tiles_are_computed_as_the_network_is_written(volume, compiler, monkeypatch):
    starved(monkeypatch, lambda blocks: blocks.numel() <= 8 * 8 * 8)
    model = a_model()
    labels, told = segmented(model, volume, compile="yes")
    assert (compiler["times"], len(told)) == (0, 1)
    assert "forward" not in vars(model.network)
    np.testing.assert_array_equal(labels, plain(a_model(), volume, tile=(8, 8, 8)))


def test_what_was_compiled_is_given_up_first(volume, compiler, monkeypatch):
    tried = starved(monkeypatch, lambda blocks: len(tried) != 10)
    model = a_model()
    labels, told = segmented(model, volume, compile="yes")
    assert [text.split(" on ")[-1] for _, text in told[1:]] == ["the network runs uncompiled."]
    assert "forward" not in vars(model.network)
    np.testing.assert_array_equal(labels, plain(a_model(), volume))
    assert segmented(a_model(), volume)[1] == []  # which is nothing to remember


def test_a_run_that_is_resumed_is_compiled_if_it_was(tmp_path, compiler):
    was, was_not = run_folder(tmp_path, "was", compile="yes"), run_folder(tmp_path, "was_not")
    for folder in (was, was_not):
        stopped_after(folder, 2)
        compiler["times"] = 0
        told = [event.text for event in runs.run(folder, resume=True) if isinstance(event, Notice)]
        assert (FIRST in told) == (compiler["times"] > 0) == (folder == was)
    np.testing.assert_array_equal(np.load(was / LABELS), np.load(was_not / LABELS))


def test_a_run_that_was_not_compiled_stays_so_when_it_is_resumed(tmp_path, compiler, monkeypatch):
    folder = run_folder(tmp_path, "run")
    stopped_after(folder, 2)
    monkeypatch.setattr(compiled_module, "LEAST_TILES", 1)
    monkeypatch.setattr(compiled_module, "compiling_pays", lambda *_: True)
    list(runs.run(folder, resume=True))
    assert compiler["modes"] == []


def test_ways_to_convolve_are_tried_on_a_gpu_only_and_no_longer_than_that():
    before = torch.backends.cudnn.benchmark
    with autotuned_convolutions(torch.device("cuda")):
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before
    with autotuned_convolutions(torch.device("cpu")):
        assert not torch.backends.cudnn.benchmark


@pytest.mark.slow
def test_torch_compiles_a_network_to_the_same_labels(volume):
    labels, told = segmented(a_model(), volume, compile="yes")
    expected = plain(a_model(), volume)
    without = "The network is not compiled: there is no C++ compiler. Install one, such as g++."
    assert [text for _, text in told] in ([FIRST], [without])
    assert (labels == expected).mean() > 0.999
