"""Text of files never commands the terminal: names, cards and messages are printed with control characters shown."""

from __future__ import annotations

import json

import numpy as np

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import printable
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.model.saved import save_tensors
from napari_unetvnet.settings import ComputeSettings

EVIL = "\x1b]0;title\x07\x1b[2J\r\x9b5m\u202eabc"
SHOWN = r"\x1b]0;title\x07\x1b[2J\r\x9b5m\u202eabc"


def test_what_commands_a_terminal_is_shown():
    assert printable(EVIL) == SHOWN
    assert printable("a\tb\n2 \u00d7 3 \u00b5m \u6f22\udcff") == "a\\tb\n2 \u00d7 3 \u00b5m \u6f22\\udcff"


def test_names_and_cards_of_strangers_do_not_command_the_terminal(tmp_path, capsys):
    card = ModelCard(
        network="unet_padding",
        option={"width": 2, "depth": 2},
        head="multiclass",
        view="2d",
        values=(0, 1),
        patch=(1, 8, 8),
        task=EVIL,
        licence=EVIL,
        class_names=(EVIL, "b"),
    )
    paths = [tmp_path / "good.safetensors", tmp_path / "bad.safetensors"]
    weights = build_model(card, ComputeSettings(device="cpu", precision="fp32")).network.state_dict()
    for path, facts in zip(paths, ({}, {EVIL: 1}), strict=True):
        save_tensors(path, weights, {"card": json.dumps(card.model_dump(mode="json") | facts)})
    for arguments in (
        ["segment", f"{tmp_path}/{EVIL}.tif", "--model", str(paths[0])],
        ["segment", "a.tif", "--model", EVIL],
        ["models", "import", str(paths[1])],
        ["train", "--network", EVIL, "--image", "a.tif", "--label", "b.tif"],
        ["runs", "show", EVIL],
        ["compare", EVIL],
    ):
        assert main(arguments) == 2
        printed = "".join(capsys.readouterr())
        assert printed
        assert not [letter for letter in printed if letter in EVIL and not letter.isprintable()], arguments
    assert main(["models", "import", str(paths[0])]) == 0
    assert main(["models"]) == 0
    printed = "".join(capsys.readouterr())
    assert SHOWN in printed
    assert not [letter for letter in printed if letter in EVIL and not letter.isprintable()]


def test_odd_settings_and_tables_that_users_give_are_sentences(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("im.npy", "lab.npy"):
        np.save(name, np.zeros((8, 8), np.uint8))
    odd = (b"[" * 100_000, b'{"a":' * 100_000, b"", b"null", b"[]", b"7", b"\xff", b'{"patch": [' + b"9" * 5000 + b"]}",
           '{"a": 1}'.encode("utf-16"), b'{"option": ' + b'{"a":' * 500 + b"1" + b"}" * 501, b'{"command": ["train"]}',
           b'{"loss": [{"name": {"a": []}}]}', b'{"\\u001b[2J": 1}', b'{"seed": Infinity}',
           b'{"pairs": "a\\u0000"}')  # fmt: skip
    for data in odd:
        (tmp_path / "settings.json").write_bytes(data)
        assert main(["check", "--image", "im.npy", "--label", "lab.npy", "--settings", "settings.json"]) == 2, data[:60]
        _only_sentences(capsys)
    first, rows = b"image,label\n", (
        b"", b"\xff.npy,lab.npy", b"a\0.npy,lab.npy", b"x" * 200_000 + b",lab.npy", b"\x1b[2J.npy,lab.npy", b"im.npy",
        b"~nobody-there/a.npy,lab.npy", b"x" * 5000 + b".npy,lab.npy",
    )  # fmt: skip
    odd = [b"", b'"' * 100_000, b"[" * 100_000, first.decode().encode("utf-16"), *(first + row + b"\n" for row in rows)]
    for data in odd:
        (tmp_path / "pairs.csv").write_bytes(data)
        for command in ("check", "evaluate"):
            assert main([command, "--pairs", "pairs.csv"]) == 2, data[:60]
            _only_sentences(capsys)


def _only_sentences(capsys):
    printed = "".join(capsys.readouterr())
    assert printed
    assert "Traceback" not in printed
    assert not [letter for letter in printed if (ord(letter) < 32 and letter != "\n") or 127 <= ord(letter) < 160]
