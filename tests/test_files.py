"""Files replaced whole or not at all, compared by identity, and read back with a sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from napari_unetvnet import files, temporary
from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import put_in_place, replacing, replacing_all, write_text, writing
from napari_unetvnet.images.same_file import same_or_inside
from napari_unetvnet.json_files import read_json, read_sealed, write_json, write_sealed
from napari_unetvnet.temporary import TEMPORARY, beside, remove


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def folder_of(path, text):
    path.mkdir(parents=True)
    (path / "a").write_text(text)
    return path


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_whatever_ends_the_writing_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)), replacing(tmp_path / "a.txt") as part:
        part.write_text("ne")
        raise error
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with replacing(tmp_path / "a.txt") as part:
        part.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
        assert (part.parent, part.suffix) == (tmp_path, ".txt")
        assert part.name.startswith(TEMPORARY)
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("name", ["x" * 251 + ".txt", "\N{SNOWMAN}" * 84 + ".x"])
def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path, name):
    write_text(tmp_path / name, "new")
    assert names(tmp_path) == [name]
    assert len(os.fsencode(beside(tmp_path / name).name)) < 144


def test_a_folder_is_replaced_whole(tmp_path):
    folder_of(tmp_path / "x.zarr", "old")
    (tmp_path / "x.zarr" / "b").write_text("of the old one")
    with replacing(tmp_path / "x.zarr") as part:
        folder_of(part / "deep", "new")
    assert names(tmp_path) == ["x.zarr"]
    assert [path.as_posix() for path in sorted((tmp_path / "x.zarr").rglob("*"))] == [
        f"{tmp_path}/x.zarr/deep", f"{tmp_path}/x.zarr/deep/a",
    ]  # fmt: skip


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("error", [OSError(13, "Permission denied"), KeyboardInterrupt()])
def test_of_several_all_are_replaced_or_none(tmp_path, monkeypatch, failing, error):
    (tmp_path / "a.csv").write_text("old")
    folder_of(tmp_path / "b.zarr", "old")
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    renamed = Path.replace
    done = []

    def failed(self, target):
        if target in places:
            done.append(target)
            if len(done) == failing + 1:
                raise error
        return renamed(self, target)

    places = [tmp_path / name for name in ("new.txt", "a.csv", "b.zarr")]
    monkeypatch.setattr(Path, "replace", failed)
    with pytest.raises(type(error)), replacing_all(places) as (first, second, third):
        first.write_text("new")
        second.write_text("new")
        folder_of(third, "new")
    assert names(tmp_path) == ["a.csv", "b.zarr"]
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before


class Stop(BaseException):
    """As an interruption from the keyboard, at a line that is chosen."""


def stopped_at(line, places):
    """Replace places, but stop at the n-th line of the module; whether that was before the end."""
    lines = 0

    def traced(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename != files.__file__:
            return None
        lines += event == "line"
        if lines == line:
            sys.settrace(None)
            raise Stop
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        with replacing_all(places) as parts:
            for part in parts:
                folder_of(part, "new") if part.suffix == ".zarr" else part.write_text("new")
    except Stop:
        return True
    finally:
        sys.settrace(before)
    return False


def test_wherever_it_is_interrupted_all_are_old_or_all_are_new(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_flush", lambda _: None)  # which takes long, and changes no name
    for names_there in (["a.csv"], ["b.zarr"], ["a.csv", "b.zarr"]):
        line, seen = 0, set()
        while True:
            line += 1
            folder = tmp_path / f"{len(names_there)}{names_there[0]}{line}"
            folder.mkdir()
            places = [folder / name for name in (*names_there, "new.txt")]
            for place in places[:-1]:
                folder_of(place, "old") if place.suffix == ".zarr" else place.write_text("old")
            stopped = stopped_at(line, places)
            visible = {path.name: path for path in folder.iterdir() if not path.name.startswith(TEMPORARY)}
            texts = {(path / "a" if path.is_dir() else path).read_text() for path in visible.values()}
            expected = names_there if texts == {"old"} else [*names_there, "new.txt"]
            assert (len(texts), sorted(visible)) == (1, sorted(expected)), line
            seen |= texts
            if not stopped:
                break
        assert seen == {"old", "new"}
        assert line > 50


def test_several_are_replaced_also_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    (tmp_path / "a").write_text("old")
    with replacing_all([tmp_path / "a", tmp_path / "b"]) as parts:
        for part in parts:
            part.write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_what_was_not_written_is_an_error_and_changes_nothing(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileNotFoundError), replacing_all([tmp_path / "a", tmp_path / "b"]) as (first, _):
        first.write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "real").mkdir()
    folder_of(tmp_path / "real" / "x.zarr", "old")
    (tmp_path / "real" / "a.txt").write_text("old")
    for name in ("x.zarr", "a.txt"):
        (tmp_path / name).symlink_to(tmp_path / "real" / name)
    write_text(tmp_path / "a.txt", "new")
    with replacing(tmp_path / "x.zarr") as part:
        folder_of(part, "new")
    assert names(tmp_path) == ["a.txt", "real", "x.zarr"]
    assert (tmp_path / "a.txt").read_text() == "new\n"
    assert (tmp_path / "x.zarr" / "a").read_text() == "new"
    assert (tmp_path / "real" / "a.txt").read_text() == "old"
    assert (tmp_path / "real" / "x.zarr" / "a").read_text() == "old"


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    folder_of(tmp_path / "results", "kept")
    with pytest.raises(IsADirectoryError, match="results"):
        write_text(tmp_path / "results", "new")
    assert names(tmp_path) == ["results"]
    assert (tmp_path / "results" / "a").read_text() == "kept"


def test_a_copy_that_is_not_finished_never_replaces_the_old_file(tmp_path, monkeypatch):
    """Where there are no hard links the old file is copied, and the disk may be full by then."""

    def half(source, target):
        Path(target).write_text("o")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", half)
    monkeypatch.setattr(files.shutil, "copy2", half)
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    with pytest.raises(OSError, match="No space"), replacing_all([tmp_path / "a", tmp_path / "b"]) as parts:
        for part in parts:
            part.write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "b": "old"}


def test_file_and_folder_are_flushed_before_and_after_the_renaming(tmp_path, monkeypatch):
    said = []
    flush, replace = os.fsync, Path.replace

    def flushed(descriptor):
        said.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        flush(descriptor)

    def replaced(self, target):
        said.append("renamed")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    write_json(tmp_path / "a.json", {})
    assert Path(said[0]).name.startswith(TEMPORARY)
    assert said[1:] == ["renamed", str(tmp_path)]


def test_a_killed_process_leaves_the_old_file_and_a_hidden_one_with_the_tag(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    code = (
        "import os, signal, pathlib, sys\nfrom napari_unetvnet.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text('ne'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old\n"
    (left,) = (name for name in names(tmp_path) if name != "a.txt")
    assert left.startswith(TEMPORARY)
    write_text(tmp_path / "b.txt", "new")
    assert names(tmp_path) == ["a.txt", "b.txt"]


def stray(path, process, mark="", computer=None):
    return path.with_name(f"{TEMPORARY}{computer or temporary._computer()}.{process}-01234567{mark}-{path.name}")


def test_only_what_dead_processes_of_this_computer_left_is_removed(tmp_path):
    """What a living process writes, other computers, and other names stay; links are not followed."""
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True)
    dead, path = int(gone.stdout), tmp_path / "x.tif"
    victim = folder_of(tmp_path / "victim", "years")
    kept = {stray(path, os.getppid()), stray(path, os.getpid()), stray(path, dead, computer="abcdef")}
    kept |= {
        tmp_path / f"{TEMPORARY}01234567-x.tif",
        tmp_path / f".{dead}-x.tif",
        tmp_path / stray(path, dead).name[1:],
    }
    for place in kept:
        place.write_text("kept")
    stray(path, dead).write_text("ha")
    folder_of(stray(tmp_path / "x.zarr", dead), "ha")
    stray(tmp_path / "link", dead).symlink_to(victim, target_is_directory=True)
    write_text(tmp_path / "b.txt", "new")
    assert names(tmp_path) == sorted(["b.txt", "victim", *(place.name for place in kept)])
    assert (victim / "a").read_text() == "years"


def test_what_a_killed_process_was_replacing_is_put_back_or_removed_if_it_was_replaced(tmp_path):
    """Killed between two renames there is nothing in the place, and the old folder has a hidden name."""
    folder_of(tmp_path / "x.zarr", "old")
    code = (
        "import os, signal, pathlib, sys\nfrom napari_unetvnet.files import replacing\n"
        "rename, path = pathlib.Path.rename, pathlib.Path(sys.argv[1])\n"
        "def killed(self, target):\n    rename(self, target); os.kill(os.getpid(), signal.SIGKILL)\n"
        "pathlib.Path.rename = killed\n"
        "with replacing(path) as part:\n    part.mkdir(); (part / 'a').write_text('new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.zarr")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "x.zarr").exists()
    (left,) = (path for path in tmp_path.iterdir() if path.name.endswith("o-x.zarr"))
    write_text(tmp_path / "b.txt", "")
    assert (tmp_path / "x.zarr" / "a").read_text() == "old"
    folder_of(left, "older")  # the process was killed after the second rename
    write_text(tmp_path / "b.txt", "")
    assert names(tmp_path) == ["b.txt", "x.zarr"]
    assert (tmp_path / "x.zarr" / "a").read_text() == "old"
    folder_of(left, "older")
    put_in_place([folder_of(tmp_path / "part-y.zarr", "grown")], [tmp_path / "y.zarr"])
    assert names(tmp_path) == ["b.txt", "x.zarr", "y.zarr"]


def test_json_comes_back_as_it_was(tmp_path):
    for value, kind in (({"\N{GREEK SMALL LETTER MU}": [1, None]}, dict), ([1.5, "a"], list)):
        write_json(tmp_path / "a.json", value)
        assert read_json(tmp_path / "a.json", kind, "write it again") == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is no JSON or is cut off"),
        (json.dumps({"a": list(range(40))}).encode()[:40], "is no JSON or is cut off"),
        (b"[" * 100_000, "is no JSON or is cut off"),
        ("{\"a\": \"\N{LATIN SMALL LETTER A WITH DIAERESIS}\"}".encode("latin-1"), "is no JSON or is cut off"),
        (b"[]", "should hold a dict, not list"),
        (b"null", "should hold a dict, not NoneType"),
    ],
)  # fmt: skip
def test_a_damaged_file_gives_a_sentence_that_says_what_to_do(tmp_path, content, reason):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileProblem) as caught:
        read_json(path, dict, "start a new run")
    (line,) = caught.value.lines
    assert line.startswith(f"{path} {reason}")
    assert line.endswith("; start a new run.")


def test_a_failure_to_write_gives_a_sentence(tmp_path):
    path = tmp_path / "no" / "a.txt"
    sentence = r"a\.txt cannot be written \(No such file or directory\); choose another place\.$"
    with pytest.raises(FileProblem, match=sentence), writing(path):
        write_text(path, "")


def test_removing_a_link_leaves_what_it_points_to(tmp_path):
    folder_of(tmp_path / "real", "kept")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("link", "nothing"):
        remove(tmp_path / name)
    assert names(tmp_path) == ["real"]
    remove(tmp_path / "real")
    assert names(tmp_path) == []


def test_a_file_is_the_same_under_each_of_its_names(tmp_path, monkeypatch):
    folder_of(tmp_path / "data", "")
    file = tmp_path / "data" / "a"
    (tmp_path / "link").symlink_to(tmp_path / "data")
    os.link(file, tmp_path / "hard")
    monkeypatch.chdir(tmp_path)
    for other in (file, tmp_path / "link" / "a", tmp_path / "hard", Path("data/../data/./a")):
        assert same_or_inside(other, file)
        assert same_or_inside(file, other)
    assert not same_or_inside(tmp_path / "data" / "b", file)


def test_a_path_is_inside_a_folder_whether_or_not_either_is_there(tmp_path):
    folder_of(tmp_path / "x.zarr", "")
    (tmp_path / "link").symlink_to(tmp_path / "x.zarr")
    assert same_or_inside(tmp_path / "link" / "0" / "c", tmp_path / "x.zarr")
    assert same_or_inside(tmp_path / "x.zarr" / "a", tmp_path / "link")
    assert same_or_inside(tmp_path / "link" / "new" / "c", tmp_path / "x.zarr" / "new")
    assert not same_or_inside(tmp_path / "x.zarr", tmp_path / "x.zarr" / "a")
    assert not same_or_inside(tmp_path / "x.zarr2", tmp_path / "x.zarr")
    assert not same_or_inside(tmp_path / "new" / "a", tmp_path / "other" / "a")


def test_where_a_file_system_ignores_case_so_does_the_comparison(tmp_path, monkeypatch):
    """Played by a second name, as for the device and number of a file the file system's own rule decides."""
    (tmp_path / "scan.nii").write_text("")
    os.link(tmp_path / "scan.nii", tmp_path / "SCAN.nii")
    assert same_or_inside(tmp_path / "SCAN.nii", tmp_path / "scan.nii")
    monkeypatch.setattr(files.os.path, "normcase", lambda path: os.fspath(path).lower())
    assert same_or_inside(tmp_path / "NEW.nii", tmp_path / "new.nii")


def test_names_that_are_no_files_are_compared_too(tmp_path):
    assert not same_or_inside(Path("hippocampus"), tmp_path / "labels.nii.gz")
    assert same_or_inside(Path("x" * 5000), Path("x" * 5000))


@dataclass(frozen=True)
class Facts:
    name: str
    sizes: tuple[Annotated[int, Field(ge=1)], ...]
    more: dict[str, float]


def test_what_is_read_by_a_schema_is_what_was_written(tmp_path):
    for facts in (Facts("a", (1, 2), {"x": 0.5}), Facts("\udcff\u00e4", (), {"\udc80": 1.0})):
        write_json(tmp_path / "a.json", asdict(facts))
        assert read_json(tmp_path / "a.json", Facts, "write it again") == facts
        write_sealed(tmp_path / "a.json", asdict(facts))
        assert read_sealed(tmp_path / "a.json", Facts, "write it again") == facts


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": 7}, "name: Input should be a valid string"),
        ({"sizes": [1, 0]}, "sizes.1: Input should be greater than or equal to 1"),
        ({"sizes": [1.5]}, "sizes.0: Input should be a valid integer"),
        ({"sizes": {"0": 1}}, "sizes: Input should be a valid array"),
        ({"more": {"x": "1"}}, "more.x: Input should be a valid number"),
        ({"odd": 1}, "expected more, name, sizes"),
    ],
)
def test_a_value_that_does_not_fit_its_schema_is_named(tmp_path, changes, reason):
    path = tmp_path / "a.json"
    write_json(path, {"name": "a", "sizes": [1], "more": {}} | changes)
    with pytest.raises(FileProblem) as caught:
        read_json(path, Facts, "start a new run")
    assert str(caught.value) == f"{path} is damaged ({reason}); start a new run."


def test_a_change_within_the_ranges_of_a_sealed_file_is_noticed(tmp_path):
    write_sealed(tmp_path / "a.json", asdict(Facts("a", (12,), {})))
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text().replace("12", "13"))
    with pytest.raises(FileProblem, match="was changed after it was written; start a new run"):
        read_sealed(tmp_path / "a.json", Facts, "start a new run")
