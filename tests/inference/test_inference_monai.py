"""Labels must be those of MONAI's sliding window with Gaussian weights over the whole volume."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from combinations import in_one_case
from test_inference_segment import RAW, pointwise_model

from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import scores, steps
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.settings import SegmentSettings

# Not imported before a test runs: MONAI takes seconds.
pytestmark = pytest.mark.skipif(find_spec("monai") is None, reason="needs MONAI")


def theirs(network, data, tile, overlap):
    """Logits (K, Z, Y, X) of MONAI."""
    from monai.inferers import sliding_window_inference

    # Its own map keeps corners of tiles at a thousandth; so two tiles count the same at the faces of the volume.
    along = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2).clip(1e-4) for n in tile]
    weights = torch.from_numpy(np.einsum("i,j,k", *along).astype(np.float32))
    with torch.inference_mode():
        x = torch.from_numpy(data)[None]
        return sliding_window_inference(
            x, tile, 1, network, overlap=overlap, mode="gaussian", roi_weight_map=weights[None, None]
        )[0].numpy()


@in_one_case("overlap", [0, 0.1, 0.25, 0.5, 0.75, 0.9])
@in_one_case(
    "shape, tile",
    [((9, 21, 34), (4, 16, 8)), ((16, 16, 16), (8, 8, 8)), ((5, 7, 6), (8, 8, 8)), ((3, 40, 9), (8, 8, 8))],
)
def test_labels_of_a_network_that_looks_at_single_voxels(shape, tile, overlap):
    data = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    model = pointwise_model(patch=tile)
    found = np.concatenate(
        [slab.labels for slab in steps(model, Volume(data), SegmentSettings(tile=tile, overlap=overlap))]
    )
    np.testing.assert_array_equal(found, theirs(model.network, data, tile, overlap).argmax(0))


@pytest.mark.parametrize("tile", [(4, 16, 48), (8, 64, 64), (16, 48, 512)])
@in_one_case("overlap", [0, 0.25, 0.5, 0.75])
def test_labels_of_real_pixels(nuclei, overlap, tile):
    pixels = np.asarray(nuclei.data)[0, 0].reshape(8, 64, 512).astype(np.float32)
    data = ((pixels - pixels.mean()) / pixels.std())[None]
    model = pointwise_model(patch=tile)
    slabs = steps(model, Volume(data), SegmentSettings(tile=tile, overlap=overlap))
    found = np.concatenate([slab.labels for slab in slabs])
    tile = tuple(min(a, b) for a, b in zip(tile, data.shape[1:], strict=True))
    np.testing.assert_array_equal(found, theirs(model.network, data, tile, overlap).argmax(0))
    assert 0.05 < found.mean() < 0.95


@pytest.mark.parametrize(("shape", "overlap"), [((24, 24, 24), 0.5), ((16, 40, 28), 0.25)])
def test_logits_of_a_network_with_instance_norm_where_tiles_lie_at_the_same_places(shape, overlap):
    torch.manual_seed(0)
    card = ModelCard(
        network="dynunet", view="3d", patch=(16, 16, 16), head="multiclass", values=(0, 1, 2), normalise="none",
        option={"width": 8, "poolings": 2, "norm": "instance"},
    )  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
    model.network.eval()
    shape = tuple(16 + round((n - 16) / (16 * (1 - overlap))) * int(16 * (1 - overlap)) for n in shape)
    data = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    chosen = SegmentSettings(tile=(16, 16, 16), overlap=overlap)
    found = torch.cat([logits for _, logits in scores(model, Volume(data), chosen, RAW)], dim=1).numpy()
    expected = theirs(model.network, data, (16, 16, 16), overlap)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    top = np.sort(expected, axis=0)
    clear = top[-1] - top[-2] > 2e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.argmax(0)[clear], expected.argmax(0)[clear])
