"""The panels offer models that fit the chosen layer first, and say in a sentence what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image
from safetensors.numpy import save_file

from napari_unetvnet.images.identity import content_hash
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ImageRecord, ModelCard
from napari_unetvnet.settings import TrainJob, checked
from napari_unetvnet.widgets import models
from napari_unetvnet.widgets.image_facts import layer_facts
from napari_unetvnet.widgets.segment import SegmentWidget
from napari_unetvnet.widgets.train import TrainWidget

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("qapp")]
FILES = {"image": "a.tif", "label": "b.tif"}


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Models of hand-made cards; none of them has weights."""
    paths = {}

    def add(name, **chosen):
        values = {"network": "unet_padding", "head": "binary", "view": "2d", "values": (0, 1), "patch": (1, 64, 64)}
        paths[name] = tmp_path / f"{name}.safetensors"
        card = ModelCard(**values | chosen)
        save_file({"w": np.zeros(1, np.float32)}, paths[name], {"card": card.model_dump_json()})

    monkeypatch.setattr(models, "list_models", lambda: dict(paths))
    add("volumes", view="3d", task="organs in MRI")
    add("colour", channels=3, task="nuclei in histology")
    add("bright", brightness=((0.8, 0.9),), task="axons in electron micrographs")
    add("cells", brightness=((0.0, 0.2),), task="nuclei in fluorescence")
    return add


@pytest.fixture
def segmenter(qtbot, listed, painted_viewer):
    widget = SegmentWidget(painted_viewer)
    qtbot.addWidget(widget)
    return widget


def entries(picker):
    return [picker.box.itemText(i) for i in range(picker.box.count())]


def test_what_fits_comes_first_and_is_chosen(segmenter):
    assert entries(segmenter.model) == ["cells", "bright", "volumes (does not fit)", "colour (does not fit)"]
    assert segmenter.model.path.stem == "cells"
    assert segmenter.model.about.text().startswith("nuclei in fluorescence\n")
    assert "fit" not in segmenter.model.about.text()


def test_another_layer_orders_them_anew_and_a_choice_by_hand_stays_with_a_sentence(segmenter, painted_viewer):
    rng = np.random.default_rng(0)
    painted_viewer.add_image(rng.normal(size=(20, 32, 32)), name="stack")
    assert segmenter.model.path.stem == "cells"
    segmenter.image.box.setCurrentText("stack")
    assert entries(segmenter.model)[0] == "volumes"
    assert segmenter.model.path.stem == "volumes"
    segmenter.model.box.setCurrentIndex(0)
    segmenter.model.box.activated.emit(0)
    segmenter.image.box.setCurrentText("cells")
    assert segmenter.model.path.stem == "volumes"
    assert "It needs a volume; cells is a single plane." in segmenter.model.about.text()
    label = segmenter.model.about
    assert label.text().startswith("It needs a volume"), "what matters most comes first"
    assert label.minimumHeight() >= label.heightForWidth(label.width()), "no line is cut off"
    assert "Choose another model, or train one." in segmenter.model.about.text()
    segmenter.panel.button.click()
    assert segmenter.panel.view.error.text()


def test_voxel_sizes_that_differ_are_told_with_what_is_done_about_it(segmenter, painted_viewer, listed):
    listed("sized", spacing=(1, 0.1, 0.1), unit="micrometer")
    layer = painted_viewer.layers["cells"]
    layer.scale, layer.units = (0.5, 0.5), ("micrometer", "micrometer")
    segmenter.model.refresh()
    segmenter.model.box.setCurrentText("sized")
    assert "5.0 times as large" in segmenter.model.about.text()
    assert "it is resampled for the model" in segmenter.model.about.text()
    segmenter.model.box.activated.emit(0)
    segmenter.settings.fields["resample"].widget.value = False
    assert "turn on resample" in segmenter.model.about.text()


def test_the_model_that_was_trained_is_chosen(segmenter, tmp_path):
    models.MODEL_SIGNALS.model_chosen.emit(str(tmp_path / "colour.safetensors"))
    assert segmenter.model.path.stem == "colour"


def test_a_model_of_this_very_image_comes_first_and_says_so(segmenter, painted_viewer, listed):
    data = painted_viewer.layers["cells"].data
    content = content_hash(Volume(data[None, None]))
    record = ImageRecord(content=content, shape=(1, *data.shape), trained=((0, 0, 0, 1, 9, 9),))
    listed("own", images=(record,))
    segmenter.model.refresh()
    assert segmenter.model.path.stem == "own"
    assert "It was trained on this image." in segmenter.model.about.text()


def test_a_training_offers_to_start_from_models_that_fit_only(qtbot, listed, painted_viewer):
    widget = TrainWidget(painted_viewer)
    qtbot.addWidget(widget)
    assert entries(widget.start) == ["auto", "nothing", "cells", "bright"]
    assert "start_from" not in widget.values()
    assert "its labels agree with yours" in widget.start.about.text()
    widget.start.box.setCurrentText("nothing")
    widget.start.box.activated.emit(1)
    assert checked(TrainJob, widget.values() | FILES).start_from is None
    assert "start_from" in checked(TrainJob, widget.values() | FILES).model_fields_set
    widget.start.refresh()
    assert widget.start.box.currentText() == "nothing"
    widget.start.box.setCurrentText("cells")
    assert checked(TrainJob, widget.values() | FILES).start_from.stem == "cells"
    assert "nuclei in fluorescence" in widget.start.about.text()
    models.MODEL_SIGNALS.model_chosen.emit(str(widget.start.path.with_stem("bright")))
    assert widget.start.path.stem == "cells"  # what was trained is chosen for segmenting only


def test_layers_are_measured_once_in_memory_and_never_on_a_disk(tmp_path, monkeypatch):
    from napari_unetvnet.widgets import image_facts

    measured, count = image_facts.facts_of, []
    monkeypatch.setattr(image_facts, "facts_of", lambda volume: count.append(volume) or measured(volume))
    values = np.random.default_rng(0).random((40, 30, 3)).astype(np.float32)
    layer = Image(values, rgb=True)
    first, second = layer_facts([layer]), layer_facts([layer])
    assert first == second
    assert (first.channels, first.planes, len(first.brightness)) == (3, 1, 3)
    assert first.content == content_hash(Volume(np.moveaxis(values, -1, 0)[:, None]))
    assert len(count) == 1
    np.save(tmp_path / "a.npy", values[..., 0])
    mapped = layer_facts([Image(np.load(tmp_path / "a.npy", mmap_mode="r"))])
    assert (mapped.channels, mapped.brightness, mapped.content, len(count)) == (1, (), "", 1)
    assert layer_facts([]) is None
    assert layer_facts([Image(np.zeros((2, 2, 2, 4, 4)))]) is None
