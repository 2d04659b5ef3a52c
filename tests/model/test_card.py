"""Model cards: read without torch from good files, refused with a sentence from bad ones."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from combinations import in_one_case
from safetensors.numpy import save_file

from napari_unetvnet.errors import FileProblem, ModelProblem, SettingsProblem
from napari_unetvnet.model.card import ModelCard, read_card
from napari_unetvnet.settings import checked

CARD = ModelCard(
    network="unet3d",
    option={"width": 4, "norm": False, "up": "upsample"},
    head="multiclass",
    view="2.5d",
    context=2,
    channels=3,
    values=(0, 3, 7),
    class_names=("rest", "cell", "wall"),
    patch=(1, 64, 64),
    spacing=(2.0, 0.5, 0.5),
    unit="micrometer",
    normalise="percentile",
    loss="dice + 0.5*ce",
    steps=12,
    seed=3,
    scores={"dice": 0.875},
    task="cells and walls in plant tissue",
    data="set A",
    licence="CC0",
    attribution="the authors of set A",
    versions={"torch": "2"},
)
WEIGHTS = {"head.weight": np.arange(6, dtype=np.float32)}


def write(path, card=CARD, **header):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(WEIGHTS, path, {"card": card.model_dump_json(), **header})
    return path


def test_a_card_is_read_back_as_it_was_written(tmp_path):
    assert read_card(write(tmp_path / "a.safetensors")) == CARD
    assert read_card(str(tmp_path / "a.safetensors")) == CARD


def test_a_card_is_read_without_torch(tmp_path):
    path = write(tmp_path / "a.safetensors")
    code = (
        "import sys, napari_unetvnet.model.card as card; card.read_card(sys.argv[1]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


@in_one_case(
    "view, context, dims, in_channels", [("2d", 0, 2, 3), ("2.5d", 1, 2, 9), ("2.5d", 2, 2, 15), ("3d", 0, 3, 3)]
)
def test_the_view_decides_what_the_network_takes(view, context, dims, in_channels):
    card = CARD.model_copy(update={"view": view, "context": context})
    assert (card.dims, card.in_channels) == (dims, in_channels)


@pytest.mark.parametrize(
    ("head", "values", "outputs"), [("binary", (0, 5), 1), ("multiclass", (0, 1, 2), 3), ("multilabel", (1, 2), 2)]
)
def test_the_head_decides_how_many_logits_there_are(head, values, outputs):
    assert CARD.model_copy(update={"head": head, "values": values}).outputs == outputs


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises(FileProblem, match=rf"{path.name}.*\.$"):
            read_card(path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    whole = write(tmp_path / "a.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in {*range(0, 24), *range(24, len(whole), 37), *range(len(whole) - 24, len(whole))}:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelProblem, match=r"cut\.safetensors is not a model file, or is cut off .*\.$"):
            read_card(cut)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"these are words and not weights",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(40),
        bytes(64),
        b"{}" * 9,
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelProblem, match=r"other\.safetensors.*\.$"):
        read_card(path)


@pytest.mark.parametrize("header", [None, {"format": "pt"}])
def test_weights_of_another_program_are_refused(tmp_path, header):
    path = tmp_path / "other.safetensors"
    save_file(WEIGHTS, path, header)
    with pytest.raises(ModelProblem, match=r"no model card; .*\.$"):
        read_card(path)


def test_a_card_of_a_newer_version_asks_for_an_update(tmp_path):
    newer = json.dumps({**CARD.model_dump(mode="json"), "flavour": "strange"})
    with pytest.raises(ModelProblem, match=r"flavour.*update the program\.$"):
        read_card(write(tmp_path / "a.safetensors", card=newer_card(newer)))


def newer_card(text):
    """Something that dumps as a given text."""

    class Newer:
        def model_dump_json(self):
            return text

    return Newer()


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"network": 5}'])
def test_a_card_that_is_broken_is_refused(tmp_path, text):
    with pytest.raises(ModelProblem, match=r"a\.safetensors: its card .*\.$"):
        read_card(write(tmp_path / "a.safetensors", card=newer_card(text)))


def test_a_card_refuses_unknown_names():
    with pytest.raises(SettingsProblem, match="'netwrok'; did you mean network"):
        checked(ModelCard, {**CARD.model_dump(), "netwrok": "unet3d"})
