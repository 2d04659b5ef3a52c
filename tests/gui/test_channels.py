"""The layers of a viewer are the channels of a model by their names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.widgets.layers import snapshot
from napari_unetvnet.widgets.model_inputs import layer_names, read_inputs

CARD = ModelCard(
    network="unet_padding", head="binary", view="2d", values=(0, 1), patch=(1, 16, 16), channels=2,
    channel_names=("DAPI", "GFP"),
)  # fmt: skip


def test_layers_are_matched_with_the_channels_of_a_model(viewer, tmp_path):
    gfp, dapi, other = (viewer.add_image(np.zeros((8, 9)), name=name) for name in ("b GFP", "b DAPI", "b Cy5"))
    model = SimpleNamespace(path=tmp_path / "m.safetensors", card=CARD)
    files = read_inputs(SimpleNamespace(layers=[gfp, dapi]), model).files
    assert files["channel_names"] == ("b GFP", "b DAPI")
    assert files["image"].count("|") == 1
    for chosen in ([gfp, other], [gfp]):
        with pytest.raises(DataProblem, match="DAPI is missing"):
            read_inputs(SimpleNamespace(layers=chosen), model)
    model.card = CARD.model_copy(update={"channel_dropout": 0.2})
    assert read_inputs(SimpleNamespace(layers=[gfp]), model).files["channel_names"] == ("b GFP",)
    model.card = CARD.model_copy(update={"channel_names": ()})
    with pytest.raises(DataProblem, match=r"2 channel\(s\), b GFP has 1"):
        read_inputs(SimpleNamespace(layers=[gfp]), model)


def test_the_colours_of_a_layer_have_no_names(viewer):
    photo = viewer.add_image(np.zeros((8, 9, 3), np.uint8), rgb=True, name="photo")
    assert layer_names(snapshot([photo], painted=False)) == ()


def test_a_training_names_its_channels_after_layers(trainer, viewer):
    first = trainer.image.layer
    viewer.add_image(np.asarray(first.data), name=f"{first.name} inverted", **{"scale": first.scale})
    assert trainer._read_job()[1].channel_names == ()
    first.name, viewer.layers[-1].name = "a DAPI", "a GFP"
    trainer.image.tick(viewer.layers["a GFP"])
    assert trainer._read_job()[1].channel_names == ("DAPI", "GFP")
