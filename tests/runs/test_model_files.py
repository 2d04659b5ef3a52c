"""Models of the list are renamed, removed, exported and imported; shipped ones, and those in use, stay."""

from __future__ import annotations

import json
import shutil

import pytest
from filelock import FileLock

from napari_unetvnet.cli.main import main
from napari_unetvnet.model.card import ModelCard, read_card, shipped_models
from napari_unetvnet.model.model import build_model, save_model
from napari_unetvnet.runs.models import find_model, list_models
from napari_unetvnet.settings import SegmentSettings

SHIPPED = min(shipped_models())


@pytest.fixture(scope="module")
def a_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "theirs.safetensors"
    card = ModelCard(network="unet_padding", option={"width": 1, "depth": 2}, head="binary", view="2d", values=(0, 1),
                     patch=(1, 8, 8), licence="CC-BY-4.0", attribution="A. Painter")  # fmt: skip
    save_model(path, build_model(card, SegmentSettings()).network.state_dict(), card)
    return path


@pytest.fixture
def trained(runs_folder, a_model):
    """The folder of a training, that of its model, and a run that has not ended and starts from it."""
    folder = runs_folder / "cells"
    folder.mkdir(parents=True)
    shutil.copy(a_model, folder / "model.safetensors")
    (folder / "job.json").write_text('{"command": "train"}')
    return folder


def own():
    return set(list_models()) - set(shipped_models())


def test_a_model_is_renamed_with_its_run(trained, runs_folder, capsys):
    assert main(["models", "rename", "cells", "spheres"]) == 0
    assert find_model("spheres") == runs_folder / "spheres" / "model.safetensors"
    assert own() == {"spheres"}
    assert (runs_folder / "spheres" / "job.json").exists()
    (runs_folder / "taken").mkdir()
    for new in ("taken", "a/b", "../cells", "", ".hidden", "x" * 81, SHIPPED, "spheres"):
        assert main(["models", "rename", "spheres", new]) == 2
    assert main(["models", "rename", SHIPPED, "mine"]) == 2
    assert "comes with the program" in capsys.readouterr().err
    assert own() == {"spheres"}


def test_a_model_is_removed_and_the_rest_of_its_run_is_told(trained, runs_folder, capsys):
    assert main(["models", "remove", "cells"]) == 0
    assert "napari-unetvnet runs prune cells" in capsys.readouterr().out
    assert own() == set()
    assert [path.name for path in trained.iterdir()] == ["job.json"]
    before = shipped_models()[SHIPPED].read_bytes()
    assert main(["models", "remove", SHIPPED]) == 2
    assert main(["models", "remove", str(shipped_models()[SHIPPED])]) == 2
    assert shipped_models()[SHIPPED].read_bytes() == before
    assert main(["models", "remove", "nothing"]) == 2


@pytest.mark.parametrize("action", [["remove", "cells"], ["rename", "cells", "spheres"]])
def test_a_model_in_use_stays(trained, runs_folder, capsys, action):
    with FileLock(trained / ".lock"):
        assert main(["models", *action]) == 2
    assert "under way" in capsys.readouterr().err
    (runs_folder / "second").mkdir()
    job = {"command": "train", "start_from": str(trained / "model.safetensors")}
    (runs_folder / "second" / "job.json").write_text(json.dumps(job))
    assert main(["models", *action]) == 2
    assert "second needs cells to continue" in capsys.readouterr().err
    assert own() == {"cells"}


def test_a_model_is_exported_with_a_word_on_its_licence(trained, a_model, tmp_path, capsys):
    given = tmp_path / "for you.safetensors"
    assert main(["models", "export", "cells", str(given)]) == 0
    said = capsys.readouterr().out
    assert "Licence: CC-BY-4.0" in said
    assert "A. Painter" in said
    assert given.read_bytes() == a_model.read_bytes()
    (tmp_path / "thesis.safetensors").write_text("years")
    assert main(["models", "export", "cells", str(tmp_path / "thesis.safetensors")]) == 2
    assert (tmp_path / "thesis.safetensors").read_text() == "years"
    assert main(["models", "export", "cells", str(trained / "model.safetensors"), "--overwrite"]) == 2
    assert main(["models", "export", "cells", str(tmp_path / "model.pt")]) == 2
    assert main(["models", "export", SHIPPED, str(tmp_path / "s.safetensors")]) == 0
    assert (tmp_path / "s.safetensors").read_bytes() == shipped_models()[SHIPPED].read_bytes()


def test_a_model_is_imported_and_found_by_its_name(a_model, runs_folder, capsys):
    assert main(["models", "import", str(a_model)]) == 0
    assert main(["models", "import", str(a_model), "--name", "second"]) == 0
    assert own() == {"theirs", "second"}
    assert (runs_folder / "theirs" / "model.safetensors").read_bytes() == a_model.read_bytes()
    capsys.readouterr()
    assert main(["models", "path", "theirs"]) == 0
    assert capsys.readouterr().out == f"{runs_folder / 'theirs' / 'model.safetensors'}\n"
    assert main(["models", "import", str(a_model)]) == 2
    assert "named theirs already" in capsys.readouterr().err
    assert main(["models", "remove", "theirs"]) == 0
    assert not (runs_folder / "theirs").exists(), "nothing else was in it"


def test_what_is_no_model_is_not_imported(a_model, runs_folder, tmp_path, capsys):
    whole = a_model.read_bytes()
    card = read_card(a_model)
    save_model(tmp_path / "other.safetensors", {}, card)
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    (tmp_path / "no.safetensors").write_bytes(b"no")
    for name in ("other", "cut", "no", "absent"):
        assert main(["models", "import", str(tmp_path / f"{name}.safetensors")]) == 2
        error = capsys.readouterr().err
        assert f"{name}.safetensors" in error
        assert "napari-unetvnet-" not in error, "the name of the temporary copy"
    assert not list(runs_folder.glob("*"))


def test_the_plain_listing_stays(trained, capsys):
    assert main(["models"]) == 0
    plain = capsys.readouterr().out
    assert "cells: " in plain
    assert main(["models", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(list_models())
