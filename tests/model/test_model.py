"""A model: one call for every view, one file, and sentences where it cannot go on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case, pairs
from safetensors.torch import load_file, save_file

from napari_unetvnet.errors import FileProblem, ModelProblem, OutOfMemory, UserError
from napari_unetvnet.model.card import ModelCard, read_card
from napari_unetvnet.model.model import build_model, load_model, save_model
from napari_unetvnet.model.saved import read_state, save_tensors
from napari_unetvnet.settings import ComputeSettings

CPU = ComputeSettings(device="cpu", precision="fp32")
SMALL = {"width": 2, "depth": 2}
VIEWS = [{"view": "2d"}, {"view": "2.5d", "context": 1}, {"view": "2.5d", "context": 2}, {"view": "3d"}]
NETWORKS = [
    {"network": "unet_padding", "option": SMALL},
    {"network": "unet_original", "option": SMALL},  # of valid convolutions
    {"network": "unet_original", "option": {**SMALL, "up": "transposed"}},
]
every_view = pytest.mark.parametrize("view", VIEWS, ids=["2d", "2.5d", "2.5d, 2 neighbours", "3d"])


def test_one_tensor_under_two_names_is_saved_twice(tmp_path):
    shared = torch.arange(3.0)
    save_tensors(tmp_path / "s.safetensors", {"a": shared, "b": shared}, {})
    assert {name: t.tolist() for name, t in load_file(tmp_path / "s.safetensors").items()} == {
        "a": [0, 1, 2],
        "b": [0, 1, 2],
    }


def a_card(**chosen):
    values = {"network": "unet_padding", "option": SMALL, "head": "multiclass", "view": "2d", "channels": 2}
    return ModelCard(**{**values, "values": (0, 1, 2), "patch": (1, 8, 8), **chosen})


def a_model(seed=0, compute=CPU, **chosen):
    torch.manual_seed(seed)
    model = build_model(a_card(**chosen), compute)
    model.network.eval()
    return model


def a_block(model, size, count=1, seed=1):
    """Intensities for an output of a size, with the margin that the model wants."""
    lengths = [n + before + after for n, (before, after) in zip(size, model.margin, strict=True)]
    return torch.randn(count, model.card.channels, *lengths, generator=torch.Generator().manual_seed(seed))


def logits(model, block):
    with torch.no_grad():
        return model.logits(block)


@every_view
@in_one_case("network, size, count", pairs(NETWORKS, [(1, 1, 1), (3, 7, 10), (2, 16, 16)], [1, 2]))
def test_the_output_has_the_size_that_was_asked_for(view, network, size, count):
    model = a_model(**view, **network)
    out = logits(model, a_block(model, size, count))
    assert out.shape == (count, 3, *size)
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@every_view
@in_one_case("network, size", pairs(NETWORKS, [(1, 1, 1), (3, 7, 10), (5, 20, 33)]))
def test_a_fitting_size_needs_no_padding(view, network, size):
    model = a_model(**view, **network)
    fits = model.fit(size)
    assert all(
        b <= a < max(b, 4) + 2 for a, b in zip(fits, size, strict=True)
    )  # one pooling: 4 is the least, 2 the grid
    assert model.fit(fits) == fits
    block = a_block(model, fits)
    dims = model.card.dims
    assert model.network.fit(block.shape[-dims:]) == tuple(block.shape[-dims:])


@every_view
@in_one_case("network", NETWORKS)
def test_sizes_are_told_for_z_y_and_x(view, network):
    model = a_model(**view, **network)
    for entry in (model.margin, model.alignment, model.smallest):
        assert len(entry) == 3
    context = model.card.context
    if model.card.dims == 2:
        assert model.margin[0] == (context, context)
        assert model.alignment[0] == model.smallest[0] == 1


@every_view
def test_what_lies_beyond_a_tile_is_read_from_the_margin(view):
    model = a_model(**view, network="unet_original", option={**SMALL, "up": "transposed"})
    model.network.double()
    block = a_block(model, (4, 24, 24)).double()
    one = logits(model, block)
    start = 4  # on the pooling grid
    margin_y, margin_x = (sum(sides) for sides in model.margin[1:])
    part = logits(model, block[..., start : start + 12 + margin_y, start : start + 8 + margin_x])
    torch.testing.assert_close(part, one[..., start : start + 12, start : start + 8], atol=1e-6, rtol=0)


@pytest.mark.parametrize("context", [1, 2])
def test_neighbour_planes_are_channels_from_the_lowest_to_the_highest(context):
    model = a_model(view="2.5d", context=context)
    block = a_block(model, (4, 8, 8), count=2)
    out = logits(model, block)
    for z in range(4):
        stack = torch.cat([block[:, :, z + k] for k in range(2 * context + 1)], dim=1)
        with torch.no_grad():
            torch.testing.assert_close(out[:, :, z], model.network(stack))


def test_planes_do_not_see_each_other_in_2d():
    model = a_model(view="2d")
    block = a_block(model, (4, 8, 8))
    other = block.clone()
    other[:, :, 2] += 5
    same = (logits(model, block) == logits(model, other)).all(dim=-1).all(dim=-1).all(dim=1)[0]
    assert same.tolist() == [True, True, False, True]


def test_planes_see_no_further_than_their_context_in_2_5d():
    model = a_model(view="2.5d", context=1)
    block = a_block(model, (6, 8, 8))
    other = block.clone()
    other[:, :, 3] += 5  # plane 2 of the output, and its neighbours
    same = (logits(model, block) == logits(model, other)).all(dim=-1).all(dim=-1).all(dim=1)[0]
    assert same.tolist() == [True, False, False, False, True, True]


@pytest.mark.parametrize("view", ["2d", "3d"])
def test_a_size_that_does_not_fit_is_mirrored_up_and_cut_back(view):
    model = a_model(view=view, option={"width": 2, "depth": 3})
    size = (4, 5, 6) if view == "2d" else (3, 5, 6)
    block = a_block(model, size)
    fits = model.fit(size)
    padded = np.pad(
        block.numpy(), [(0, 0), (0, 0), *((0, b - a) for a, b in zip(size, fits, strict=True))], mode="reflect"
    )
    z, y, x = size
    torch.testing.assert_close(logits(model, block), logits(model, torch.from_numpy(padded))[:, :, :z, :y, :x])


def test_patches_of_a_batch_do_not_see_each_other():
    model = a_model(view="3d")
    block = a_block(model, (4, 6, 8), count=3)
    torch.testing.assert_close(logits(model, block)[1:2], logits(model, block[1:2]))


def test_gradients_pass_through_every_view():
    for view in ({"view": "2d"}, {"view": "2.5d", "context": 1}, {"view": "3d"}):
        model = a_model(**view)
        model.network.train()
        model.logits(a_block(model, (4, 8, 8), count=2)).sum().backward()
        assert all(p.grad is not None for p in model.network.parameters())


def test_bf16_convolutions_still_give_float32_logits_close_to_the_exact_ones():
    exact = a_model()
    coarse = a_model(compute=ComputeSettings(device="cpu", precision="bf16"))
    assert (exact.precision, coarse.precision) == ("fp32", "bf16")
    block = a_block(exact, (2, 16, 16))
    fine, rough = logits(exact, block), logits(coarse, block)
    assert rough.dtype == torch.float32
    assert not torch.equal(fine, rough)
    assert (fine - rough).abs().max() < 0.1 * fine.std()


@every_view
def test_a_model_that_is_saved_and_loaded_says_the_same(view, tmp_path):
    model = a_model(**view)
    path = tmp_path / "model.safetensors"
    save_model(path, model.network.state_dict(), model.card)
    loaded = load_model(path, CPU)
    assert loaded.card == model.card == read_card(path)
    assert not loaded.network.training
    block = a_block(model, (3, 9, 9))
    assert torch.equal(logits(model, block), logits(loaded, block))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_saving_twice_gives_the_same_bytes(tmp_path):
    model = a_model()
    for name in ("first", "second"):
        save_model(tmp_path / name, model.network.state_dict(), model.card)
    loaded = load_model(tmp_path / "first", CPU)
    save_model(tmp_path / "third", loaded.network.state_dict(), loaded.card)
    first, second, third = ((tmp_path / name).read_bytes() for name in ("first", "second", "third"))
    assert first == second == third


@every_view
def test_a_model_saved_in_half_precision_gives_the_same_labels(view, tmp_path):
    model, places = a_model(**view), (tmp_path / "half", tmp_path / "whole")
    for path, half in zip(places, (True, False), strict=True):
        save_model(path, model.network.state_dict(), model.card, half=half)
    again = load_model(places[0], CPU)
    assert {p.dtype for p in again.network.parameters()} == {torch.float32}
    block = a_block(model, (3, 32, 32))
    assert (logits(again, block).argmax(1) == logits(model, block).argmax(1)).float().mean() >= 0.999
    kernels = {name: t.dtype for name, t in load_file(places[0]).items() if t.ndim > 1}
    assert set(kernels.values()) == {torch.float16}


def test_half_precision_halves_kernels_only_and_none_beyond_its_range(tmp_path):
    tensors = {
        "kernel": torch.full((2, 2), 0.1),
        "large": torch.full((2, 2), 1e6),
        "variance": torch.full((2,), 1e-9),
        "steps": torch.tensor(70000),
    }
    save_model(tmp_path / "m", tensors, a_card(), half=True)
    saved = load_file(tmp_path / "m")
    assert {n: t.dtype for n, t in saved.items() if t.dtype is torch.float16} == {"kernel": torch.float16}
    assert all(torch.equal(saved[name], tensors[name]) for name in tensors if name != "kernel")


def test_saving_replaces_what_was_there(tmp_path):
    path = tmp_path / "model.safetensors"
    for seed in (0, 1):
        model = a_model(seed=seed)
        save_model(path, model.network.state_dict(), model.card)
    first = next(iter(model.network.state_dict()))
    assert torch.equal(load_file(path)[first], model.network.state_dict()[first])


def test_weights_in_any_memory_layout_are_saved(tmp_path):
    tensor = torch.arange(24.0).reshape(2, 3, 2, 2)
    save_tensors(tmp_path / "a", {"w": tensor.to(memory_format=torch.channels_last)}, {})
    assert torch.equal(load_file(tmp_path / "a")["w"], tensor)


def test_state_in_the_header_is_read_back(tmp_path):
    save_tensors(tmp_path / "a", {"w": torch.zeros(1)}, {"state": '{"step": 3, "best": null}'})
    assert read_state(tmp_path / "a", dict) == {"step": 3, "best": None}


@pytest.mark.parametrize("place", ["no such folder/model.safetensors", "a file/model.safetensors"])
def test_a_place_that_cannot_be_written_is_refused_with_a_sentence(tmp_path, place):
    (tmp_path / "a file").write_text("")
    with pytest.raises(FileProblem, match=r"cannot be written .*; choose another place\.$"):
        save_model(tmp_path / place, {"w": torch.zeros(1)}, a_card())


def test_a_folder_in_the_way_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(FileProblem, match=r"cannot be written .*\.$"):
        save_model(tmp_path / "model.safetensors", {"w": torch.zeros(1)}, a_card())


@pytest.mark.parametrize(
    "misfit",
    [{"option": {"width": 4, "depth": 2}}, {"option": {"width": 2, "depth": 3}}, {"network": "unet3d"}, {"channels": 1},
     {"view": "3d"}, {"values": (0, 1)}],
    ids=str,
)  # fmt: skip
def test_weights_that_do_not_fit_their_card_are_refused(tmp_path, misfit):
    path = tmp_path / "model.safetensors"
    save_model(path, a_model().network.state_dict(), a_card(**misfit))
    with pytest.raises(ModelProblem, match=r"model\.safetensors: the weights do not fit the model card \(.*\)\.$"):
        load_model(path, CPU)


def test_a_card_with_an_unknown_network_is_refused_with_a_sentence(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, a_model().network.state_dict(), a_card(network="unet_of_tomorrow"))
    with pytest.raises(UserError, match=r"'unet_of_tomorrow'.*[.?]$"):
        load_model(path, CPU)


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(FileProblem, match=r"gone.*\.$"):
        load_model(tmp_path / "gone", CPU)
    (tmp_path / "text").write_text("not a model at all")
    save_file({"w": torch.zeros(1)}, tmp_path / "other")
    for name in ("text", "other"):
        with pytest.raises(ModelProblem, match=rf"{name}.*\.$"):
            load_model(tmp_path / name, CPU)


def failing(monkeypatch, model, error):
    def forward(x):
        raise error

    monkeypatch.setattr(model.network, "forward", forward)
    return a_block(model, (2, 8, 8), count=3)


@pytest.mark.parametrize("view", ["2d", "3d"])
@in_one_case(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_what_does_not_fit_in_memory_is_told_with_its_size_and_a_way_out(monkeypatch, view, error):
    model = a_model(view=view)
    block = failing(monkeypatch, model, error)
    with pytest.raises(
        OutOfMemory, match=r"^3 block\(s\) of 2 x 8 x 8 voxels do not fit .* cpu; choose a smaller .*\.$"
    ):
        model.logits(block)


@pytest.mark.parametrize(
    "words",
    [
        "mat1 and mat2 shapes cannot be multiplied",
        "CUDA error: an illegal memory access was encountered",
        "Unsupported memory format supplied. Only channels_last is supported",
    ],
)
def test_any_other_fault_of_the_network_comes_through(monkeypatch, words):
    model = a_model()
    block = failing(monkeypatch, model, RuntimeError(words))
    with pytest.raises(RuntimeError, match=words[:20]):
        model.logits(block)
