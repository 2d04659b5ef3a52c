"""Each file that a run reads back, damaged in each way: a sentence, or the same bytes as if it were whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from safetensors.torch import load_file
from test_runs_damaged import segmentation, trained  # noqa: F401 (a fixture)

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import UserError
from napari_unetvnet.events import SlabDone, to_line
from napari_unetvnet.inference.fallback import TileOptions
from napari_unetvnet.json_files import write_sealed
from napari_unetvnet.model.saved import _header, save_tensors
from napari_unetvnet.runs import folder as own
from napari_unetvnet.runs.places import labels_in
from napari_unetvnet.widgets.auto import planned_in


def nested_wrongly(whole):
    """Each value replaced by one of another type, also within lists and objects."""

    def wrong(value):
        if isinstance(value, dict):
            return {name: wrong(each) for name, each in value.items()}
        return [wrong(each) for each in value] if isinstance(value, list) and value else {"a": [None]}

    try:
        lines = [
            json.dumps(wrong(json.loads(line))) for line in (whole.splitlines() if b'"event"' in whole else [whole])
        ]
    except ValueError:  # no JSON
        return b'{"a": [null]}\n'
    return "\n".join(lines).encode() + b"\n"


def turned(whole):
    """Numbers out of any range."""
    return whole.replace(b"0.", b"1e999") if b"0." in whole else whole.replace(b"1", b"9" * 400)


DAMAGE = {
    "absent": lambda _: None,
    "empty": lambda _: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "no UTF-8": lambda whole: whole[:9] + b"\xff" + whole[10:],
    "a list": lambda _: b"[]\n",
    "null": lambda _: b"null\n",
    "wrong types": nested_wrongly,
    "infinities": turned,
    "deep nesting": lambda _: b"[" * 100_000 + b"\n",
    "deep nesting of objects": lambda _: b'{"a":' * 100_000 + b"\n",
    "zeros": lambda whole: bytes(len(whole)),
}


def spoiled(folder, name, kind):
    damaged = DAMAGE[kind]((folder / name).read_bytes())
    (folder / name).unlink() if damaged is None else (folder / name).write_bytes(damaged)


def said(capsys, *arguments):
    """Run a command; give its exit status, once it has said no more than sentences."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    assert status in (0, 2), told.err
    assert "Traceback" not in told.out + told.err
    assert status == 0 or told.err.strip()
    return status


def followed(folder):
    """Read what the viewer reads of a run."""
    planned_in(folder / own.PLAN)
    for read in (runs.follow, labels_in, runs.read):
        try:
            read(folder)
        except UserError as problem:
            assert str(problem)


def copied(source, place):
    shutil.rmtree(place, ignore_errors=True)
    return shutil.copytree(source, place)


@pytest.fixture(scope="module")
def continued(trained, tmp_path_factory):  # noqa: F811
    """The run, and the model that it has after two more steps."""
    folder = tmp_path_factory.mktemp("continued") / "run"
    (trained / own.ATTEMPTS).write_text(json.dumps({"changed": {}, "seconds": 0.0, "epochs": 0}))
    copied(trained, folder)
    assert main(["run", str(folder), "--resume", "--steps", "4"]) == 0
    return trained, (folder / own.MODEL).read_bytes()


TRAINED = (own.JOB, own.PLAN, own.PROVENANCE, own.ATTEMPTS, own.EVENTS, own.STATE, own.MODEL)


@pytest.mark.parametrize("name", TRAINED)
def test_a_damaged_file_of_a_training_is_a_sentence_or_changes_nothing(continued, tmp_path, capsys, name):
    trained, expected = continued  # noqa: F811
    for kind in DAMAGE:
        folder = copied(trained, tmp_path / "run")
        spoiled(folder, name, kind)
        said(capsys, "compare", folder)
        said(capsys, "runs", "show", folder)
        followed(folder)
        if said(capsys, "run", folder, "--resume", "--steps", "4") == 0 and (name, kind) not in AGAIN:
            assert (folder / own.MODEL).read_bytes() == expected, kind


AGAIN = {(own.STATE, "absent")}
"""Without a state a training begins again, with the same seed, and its first steps have another schedule."""


@pytest.fixture(scope="module")
def half(trained, tmp_path_factory):  # noqa: F811
    """A segmentation that was stopped, with what lies beside its output, and the result that it comes to."""
    place = tmp_path_factory.mktemp("half")
    (place / "now").mkdir()
    (place / "now" / "out").mkdir()
    folder = segmentation(trained, place / "now" / "run", output=str(place / "now" / "out" / "o.zarr"))
    options = TileOptions(batch=1, tile=(1, 16, 16))
    write_sealed(folder / own.FALLBACK, asdict(options))
    copied(place / "now", place / "kept")
    assert main(["run", str(folder), "--resume"]) == 0
    return place, contents(place / "now" / "out" / "o.zarr")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", [own.JOB, own.EVENTS, own.PLACES, own.SETTLED, own.FALLBACK, "zarr.json"])
def test_a_damaged_file_of_a_segmentation_is_a_sentence_or_changes_nothing(half, capsys, name):
    place, expected = half
    for kind in DAMAGE:
        folder = copied(place / "kept", place / "now") / "run"
        growing = labels_in(folder)
        spoiled(growing if name == "zarr.json" else folder, name, kind)
        said(capsys, "runs", "show", folder)
        followed(folder)
        done = said(capsys, "run", folder, "--resume") == 0
        assert (folder.parent / "out" / "o.zarr").exists() == done
        if done and (name, kind) != (own.JOB, "infinities"):  # a job with other tiles is another job
            assert contents(folder.parent / "out" / "o.zarr") == expected, kind


def test_events_that_count_other_planes_than_the_image_has_are_not_believed(half):
    place, expected = half
    for stop, depth in ((6, 6), (7, 7), (2**62, 2**62)):
        folder = copied(place / "kept", place / "now") / "run"
        whole = (folder / own.EVENTS).read_bytes()
        line = next(line for line in whole.splitlines() if b"SlabDone" in line)
        changed = line.replace(b'"stop": 1', b'"stop": %d' % stop).replace(b'"depth": 6', b'"depth": %d' % depth)
        assert changed != line
        (folder / own.EVENTS).write_bytes(whole.replace(line, changed))
        assert main(["run", str(folder), "--resume"]) == 2, "the check sum is of another line"
        (folder / own.EVENTS).write_text(to_line(SlabDone(0, 7, 7)) + "\n")
        assert main(["run", str(folder), "--resume"]) == 0
        assert contents(folder.parent / "out" / "o.zarr") == expected


def test_a_flipped_bit_in_numbers_that_labels_depend_on_is_noticed(half, capsys):
    place, expected = half
    for name in (own.SETTLED, own.FALLBACK):
        for number in b"123456789":
            folder = copied(place / "kept", place / "now") / "run"
            whole = (folder / name).read_bytes()
            if number not in whole:
                continue
            where = whole.index(number)
            (folder / name).write_bytes(whole[:where] + bytes([number ^ 1]) + whole[where + 1 :])
            if said(capsys, "run", folder, "--resume") == 0:
                assert contents(folder.parent / "out" / "o.zarr") == expected, (name, number)


def test_a_flipped_bit_in_a_saved_state_is_noticed(continued, tmp_path, capsys):
    trained, expected = continued  # noqa: F811
    size = (trained / own.STATE).stat().st_size
    for where in np.linspace(9, size - 1, 12).astype(int):
        folder = copied(trained, tmp_path / "run")
        data = bytearray((folder / own.STATE).read_bytes())
        data[where] ^= 1
        (folder / own.STATE).write_bytes(data)
        if said(capsys, "run", folder, "--resume", "--steps", "4") == 0:
            assert (folder / own.MODEL).read_bytes() == expected, where


def test_a_saved_state_with_a_header_of_other_types_is_a_sentence(continued, tmp_path, capsys):
    trained, _ = continued  # noqa: F811
    folder = copied(trained, tmp_path / "run")
    whole = json.loads(_header(folder / own.STATE)["state"])
    changed = [{}, [], None, 7, "a", whole | {"schedule": []}, whole | {"card": 7}, whole | {"card": {}}]
    changed += [whole | {name: None} for name in whole if name != "parent"]
    changed += [whole | {"schedule": whole["schedule"] | {name: value}} for name in ("step", "first", "peak", "seconds")
                for value in (-1, "1", float("inf"), 10**30, [1])]  # fmt: skip
    changed += [whole | {"best": whole["best"] | {"scores": {"2": "a"}}}, whole | {"fallback": {"patch": [0, 1, 1]}}]
    for header in ("", "[" * 100_000, '{"a":' * 100_000, *map(json.dumps, changed)):
        save_tensors(folder / own.STATE, load_file(trained / own.STATE), {"state": header})
        assert said(capsys, "run", folder, "--resume", "--steps", "4") == 2, header[:100]
