"""No command loses a file: an output never replaces an input, whatever both are called."""

from __future__ import annotations

import itertools
import os
import shutil
import uuid
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tifffile

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import DataProblem, FileProblem, SettingsProblem
from napari_unetvnet.images import same_file, written
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import read_labels, write_labels
from napari_unetvnet.images.outputs import replaced_input
from napari_unetvnet.images.sources import files_of
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.images.written import claimed, delivering, is_unchanged, records_folder, refuse_foreign
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model, save_model
from napari_unetvnet.runs import results
from napari_unetvnet.runs.delivery import deliver_model
from napari_unetvnet.runs.folder import CLEANED, LABELS, MODEL
from napari_unetvnet.settings import SegmentJob, SegmentSettings, checked

SHAPE = (2, 20, 24)
SPELLINGS = {
    "plain": lambda path: path.name,
    "dot": lambda path: f"./{path.name}",
    "parent": lambda path: f"../{path.parent.name}/{path.name}",
    "absolute": str,
    "slash": lambda path: f"{path.name}/",
    "symbolic link": lambda path: _linked(path, os.symlink),
    "link of the folder": lambda path: f"../{_linked(path.parent, os.symlink)}/{path.name}",
    "hard link": lambda path: _linked(path, os.link),
    "link in a row": lambda path: _linked(path.with_name(_linked(path, os.symlink)), os.symlink),
}
"""Ways to name one file in the working directory."""


NUMBERS = itertools.count()


def _linked(path, link):
    name = f"link{next(NUMBERS)}{path.suffix}"
    link(path, path.with_name(name))
    return name


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with an image and labels as TIFF and as Zarr, a model, and a table of pairs."""
    folder = tmp_path / "data"
    (folder / "labels").mkdir(parents=True)
    (folder / "images").mkdir()
    monkeypatch.chdir(folder)
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 3:9, 3:9], labels[0, 15, 20] = 1, 1
    for name in ("im.tif", "lab.tif", "images/im.tif", "labels/im.tif"):
        tifffile.imwrite(name, labels)
    like = Volume(labels[None], Geometry((1, 1, 1), "pixel"))
    write_labels(folder / "im.zarr", labels, like)
    write_labels(folder / "lab.zarr", labels, like)
    card = ModelCard(network="unet_padding", option={"width": 2, "depth": 2}, head="multiclass", view="2d",
                     values=(0, 1), patch=(1, 16, 16), normalise="none")  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu"))
    save_model(folder / "m.safetensors", model.network.state_dict(), card)
    (folder / "pairs.csv").write_text("image,label\nim.tif,lab.tif\n")
    return folder


def contents(folder):
    """The bytes of every file of a folder, without links."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def run(command, before, capsys):
    """Run a command that must be refused, and find every file as it was."""
    assert main(command) == 2, command
    assert capsys.readouterr().err.count("is read; give another output") == 1, command
    assert {path: path.read_bytes() for path in before} == before, command


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_command_replaces_what_it_reads(files, spelling, capsys):
    before, training = contents(files), ["--steps", "1", "--device", "cpu"]

    def name(file):
        return SPELLINGS[spelling](files / file)

    if spelling != "hard link":  # of a folder there is none
        for inner in ("im.zarr", "im.zarr/0"):
            run(["segment", inner, "--model", "m.safetensors", "--output", name("im.zarr")], before, capsys)
        run(["clean", name("lab.zarr"), "--output", "lab.zarr", "--min-size", "2"], before, capsys)
    image, labels = name("im.tif"), os.path.relpath(name("lab.tif"))
    run(["segment", "im.tif", "--model", "m.safetensors", "--output", image], before, capsys)
    run(["segment", image, "--model", "m.safetensors", "--output", "im.tif"], before, capsys)
    given = ["segment", "lab.tif", "--model", "m.safetensors", "--output", "new.tif"]
    run([*given[:1], "im.tif:1", *given[2:-1], image], before, capsys)
    run([*given, "--probabilities", image, "--mask", "im.tif"], before, capsys)
    run(["clean", "im.tif", "--output", image, "--min-size", "2"], before, capsys)
    run(["clean", image, "--output", "im.tif", "--min-size", "2"], before, capsys)
    run(["inspect", image, "--model", "m.safetensors", "--output", "."], before, capsys)
    for inputs in (["--image", "im.tif", "--label", "lab.tif"], ["--pairs", "pairs.csv"]):
        run(["augment", *inputs, *training, "--patches", image], before, capsys)
    folders = ["--image", "images/im.tif", "--label", labels, *training]
    run(["augment", *folders, "--patches", labels], before, capsys)


def test_an_output_in_the_place_of_an_input_by_a_link_is_refused(files, capsys):
    before = contents(files)
    (files / "new.safetensors").symlink_to(files / "labels" / "im.tif")
    for command, inputs in (
        ("train", ["--image", "images", "--label", "labels"]),
        ("sweep", ["--image", "images", "--label", "labels", "--run", "runs"]),
    ):
        run([command, *inputs, "--steps", "1", "--output", "new.safetensors"], before, capsys)
    (files / "im_objects.csv").symlink_to("im.tif")
    (files / "new_objects.csv").symlink_to("lab.tif")
    run(["clean", "lab.tif", "--objects", "components", "--output", "new.tif"], before, capsys)
    given = ["--model", "m.safetensors", "--objects", "components", "--output", "im.npy"]
    run(["segment", "im.tif", *given], before, capsys)


def test_nothing_is_written_into_a_folder_that_is_read(files, capsys):
    before = contents(files)
    (files / "link").symlink_to("im.zarr")
    for image in ("im.zarr", "im.zarr/0"):
        for output in ("im.zarr/zarr.tif", "im.zarr/labels.zarr", "link/0/c/a.tif"):
            (files / output).parent.mkdir(exist_ok=True)
            run(["segment", image, "--model", "m.safetensors", "--output", output], before, capsys)
    assert contents(files).keys() == before.keys()


# Other files ----------------------------------------------------------------------------------------------------------


COMMANDS = {
    "clean": (["clean", "lab.tif", "--min-size", "2", "--output"], "new.tif"),
    "clean, zarr": (["clean", "lab.tif", "--min-size", "2", "--output"], "new.zarr"),
    "clean, table": (["clean", "lab.tif", "--objects", "components", "--output", "new.npy"], "new_objects.csv"),
    "clean, lines": (["clean", "lab.tif", "--thin", "1", "--output", "new.npy"], "new_lines_1.csv"),
    "segment": (["segment", "im.tif", "--model", "m.safetensors", "--output"], "new.nii.gz"),
    "segment, zarr": (["segment", "im.tif", "--model", "m.safetensors", "--output"], "new.zarr"),
    "segment, probabilities": (
        ["segment", "im.tif", "--model", "m.safetensors", "--output", "new.tif", "--probabilities"], "p.npy"
    ),
    "augment": (
        ["augment", "--image", "im.tif", "--label", "lab.tif", "--count", "1", "--patch", "1", "16", "16",
         "--view", "2d", "--patches"], "new.npy"
    ),
}  # fmt: skip
"""Commands, and a file that each writes; it is the last argument unless it lies beside another."""


def command_of(name):
    command, output = COMMANDS[name]
    return [*command, output] if command[-1].startswith("--") else command


@pytest.mark.parametrize("name", COMMANDS)
def test_only_what_the_program_wrote_and_no_one_changed_is_replaced(files, name, capsys):
    command, output = command_of(name), files / COMMANDS[name][1]
    assert main(command) == 0
    assert main(command) == 0  # what it wrote itself
    inner = next(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else output
    inner.write_bytes(inner.read_bytes() + b"corrected by hand")
    capsys.readouterr()
    assert main(command) == 2
    assert "was changed since this program wrote it" in capsys.readouterr().err
    assert inner.read_bytes().endswith(b"by hand")
    assert main([*command, "--overwrite"]) == 0
    assert not inner.exists() or not inner.read_bytes().endswith(b"by hand")
    assert main(command) == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_what_someone_else_has_written_stays(files, name, capsys):
    command, output = command_of(name), files / COMMANDS[name][1]
    if output.suffix == ".zarr":
        shutil.copytree(files / "im.zarr", output)
    else:
        output.write_bytes(b"years of work")
    before = contents(files)
    assert main(command) == 2
    assert "exists and was not written by this program; give another" in capsys.readouterr().err
    assert contents(files) == before


@pytest.mark.parametrize("ending", [".tif", ".zarr"])
def test_a_link_is_written_through(files, tmp_path, ending, capsys):
    (tmp_path / "large disk").mkdir()
    there = tmp_path / "large disk" / f"there{ending}"
    (files / f"new{ending}").symlink_to(there)
    command = ["segment", "im.tif", "--model", "m.safetensors", "--output", f"new{ending}"]
    assert main(command) == 0
    assert (files / f"new{ending}").is_symlink()
    assert read_labels(there).shape == SHAPE
    assert main(command) == 0  # a second result in the same place
    assert not list(files.glob("part-*")) and [path.name for path in there.parent.iterdir()] == [there.name]
    shutil.copytree(files / "im.zarr", tmp_path / "x.zarr")
    (files / "mine.zarr").symlink_to(tmp_path / "x.zarr")
    before = contents(tmp_path / "x.zarr")
    assert main([*command[:-1], "mine.zarr"]) == 2
    assert contents(tmp_path / "x.zarr") == before


def test_a_model_is_written_through_a_link(files, tmp_path):
    model, there = files / "m.safetensors", tmp_path / "there.safetensors"
    (tmp_path / "run").mkdir()
    shutil.copy(model, tmp_path / "run" / MODEL)
    (files / "new.safetensors").symlink_to(there)
    deliver_model(tmp_path / "run", files / "new.safetensors")
    assert there.read_bytes() == model.read_bytes()
    assert (files / "new.safetensors").is_symlink()


def test_of_two_runs_into_one_output_the_second_is_told(files, capsys):
    (files / "link.tif").symlink_to("new.tif")
    for command in ("clean", "segment"):
        words, _ = COMMANDS[command]
        with claimed([files / "new.tif"]):
            for output in ("new.tif", "./new.tif", "link.tif"):
                assert main([*words, output]) == 2
                assert "Another run is writing" in capsys.readouterr().err
    assert not (files / "new.tif").exists()
    training = ["--image", "images", "--label", "labels", "--steps", "1", "--device", "cpu"]
    for words, output, both in (
        (["train", *training, "--output"], "new.safetensors", True),  # a model gets another name, if need be
        (["augment", *training, "--patches"], "new.npy", False),
        (["inspect", "im.tif", "--model", "m.safetensors", "--output"], "maps", False),
    ):
        with claimed([files / output]):
            assert main([*words, output]) == (0 if both else 2)
            assert "Another run is writing" in capsys.readouterr().err
        assert (files / output).exists() == both


def test_where_a_file_system_ignores_case_so_do_the_locks(files, monkeypatch):
    with claimed([files / "new.tif"]), claimed([files / "NEW.tif"]):
        pass
    monkeypatch.setattr(same_file, "_folds_case", lambda folder: True)
    with claimed([files / "new.tif"]), pytest.raises(FileProblem, match="Another run"), claimed([files / "NEW.tif"]):
        pass
    with pytest.raises(SettingsProblem, match="Two results would be written"):
        checked(SegmentJob, {"image": "im.tif", "model": "m", "output": "r.npy", "probabilities": "R.npy"})


def test_a_sweep_keeps_a_table_that_was_made_by_hand(files, capsys):
    (files / "runs").mkdir()
    (files / "runs" / "comparison.json").write_text("mine")
    given = ["--image", "images", "--label", "labels", "--steps", "1", "--device", "cpu", "--run", "runs"]
    assert main(["sweep", *given]) == 2
    assert "comparison.json exists and was not written by this program" in capsys.readouterr().err
    assert [path.name for path in (files / "runs").iterdir()] == ["comparison.json"]


def _ome_set(folder):
    """A stack of two planes in two files, each of which names the other."""
    uuids = {name: f"urn:uuid:{uuid.uuid4()}" for name in ("a.ome.tif", "b.ome.tif")}
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{text}</UUID></TiffData>'
        for z, (name, text) in enumerate(uuids.items())
    )
    for name, own in uuids.items():
        described = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}"><Image ID="Image:0"><Pixels '
            'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="24" SizeY="20" SizeZ="2" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / name, np.zeros((20, 24), np.uint8), description=described, metadata=None)
    return "a.ome.tif", "b.ome.tif"


def _linked_h5(folder):
    with h5py.File(folder / "far.h5", "w") as file:
        file["image"] = np.zeros(SHAPE, np.uint8)
    with h5py.File(folder / "near.h5", "w") as file:
        file["image"] = h5py.ExternalLink("far.h5", "/image")
    return "near.h5:/image", "far.h5"


def _virtual_h5(folder):
    _linked_h5(folder)
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource("far.h5", "image", SHAPE)
    with h5py.File(folder / "virtual.h5", "w") as file:
        file.create_virtual_dataset("image", layout)
    return "virtual.h5", "far.h5"


def _header(folder):
    (folder / "v.raw").write_bytes(bytes(int(np.prod(SHAPE))))
    text = "ObjectType = Image\nNDims = 3\nDimSize = 24 20 2\nElementType = MET_UCHAR\nElementDataFile = v.raw\n"
    (folder / "v.mhd").write_text(text)
    return "v.mhd", "v.raw"


@pytest.mark.parametrize("make", [_ome_set, _linked_h5, _virtual_h5, _header])
def test_files_to_which_an_image_leads_are_read_too(files, make):
    image, other = make(files)
    assert files / other in files_of(files / image)
    assert "which is read" in replaced_input([files / other], [files / image])
    assert "which is read" not in replaced_input([files / "im.tif"], [files / image])


def test_a_result_is_recorded_before_it_is_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(written, "put_in_place", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), delivering(tmp_path / "a.csv") as (part,):
        part.write_text("1")
        os.link(part, tmp_path / "a.csv")  # killed in the middle
    assert is_unchanged(tmp_path / "a.csv")


def test_a_record_that_is_damaged_counts_as_none(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_UNETVNET_CACHE", str(tmp_path / "cache"))
    with delivering(tmp_path / "a.csv") as (part,):
        part.write_text("1")
    (record,) = records_folder().iterdir()
    for text in ("", "[]", "{}", '{"states": 1}', '{"states": [[1]]}', "[" * 100000):
        record.write_text(text)
        with pytest.raises(FileProblem, match="was not written by this program"):
            refuse_foreign([tmp_path / "a.csv"])


def test_without_a_place_for_records_results_are_written_and_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_UNETVNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").write_text("in the way")
    with claimed([tmp_path / "a.csv"]) as text, delivering(tmp_path / "a.csv") as (part,):
        part.write_text("1")
    assert text.endswith("to replace them later, add --overwrite.")
    assert (tmp_path / "a.csv").read_text() == "1"


# What cannot be held --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["clean", "segment"])
def test_what_a_format_cannot_hold_is_told_before_the_work(files, command, monkeypatch, capsys):
    monkeypatch.setattr("napari_unetvnet.runs.clean.postprocess", None)
    monkeypatch.setattr("napari_unetvnet.runs.segment.whole_chunks", None)
    words, _ = COMMANDS[command]
    assert main([*words, "new.png"]) == 2
    assert "PNG holds one plane, not 2; use" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_at_the_end_is_named(files, monkeypatch, capsys):
    def fail(*_):
        raise DataProblem("new.tif cannot be written: it is too large.")

    monkeypatch.setitem(results.WRITE, "labels", fail)
    for cleaning, name in (([], LABELS), (["--min-size", "2"], CLEANED)):
        words, _ = COMMANDS["segment"]
        assert main([*words, "new.tif", "--run", "kept", *cleaning]) == 2
        kept = capsys.readouterr().err.split("The result is complete in ")[1].strip()[:-1]
        assert kept.endswith(name)
        assert np.load(kept).shape == SHAPE


def test_results_that_the_disk_cannot_hold_are_refused_before_the_work(files, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=np.prod(SHAPE) - 1))
    words, _ = COMMANDS["segment"]
    assert main([*words, "new.tif"]) == 2
    assert "bytes are free there" in capsys.readouterr().err
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=np.prod(SHAPE)))
    assert main([*words, "new.npy"]) == 2  # it is in the run folder, and copied to a file of the same size
    assert "choose other folders for the run and the output" in capsys.readouterr().err
    assert main([*words, "new.tif"]) == 0
