"""Work that is interrupted at its n-th call to the disk, and what must hold afterwards, whatever n is."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import threading
from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from faults import KILLED, REMOVING, Faults, happening
from work import TINY, content, in_child

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import FileProblem, UserError
from napari_unetvnet.images.written import delivering
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import EVENTS, JOB, new_folder
from napari_unetvnet.temporary import TEMPORARY

OPTIONS = {name: value for name, value in TINY.items() if name != "option"}


@dataclass(frozen=True)
class Work:
    """A command that writes ``output`` in the folder ``out`` of its case."""

    name: str
    output: str
    arguments: tuple[str, ...]
    replaces: bool = True
    """Whether an earlier result lies there."""
    beside: tuple[str, ...] = ()
    """What else it writes."""
    partial: bool = False
    """Whether a model so far is a result, too."""
    runs: bool = True
    """Whether it has a run folder, so that it is resumed and not repeated."""
    reference: dict = field(default_factory=dict, compare=False)

    def start(self, case):
        places = {"CASE": str(case), "FILES": str(case.parent)}
        return command([_filled(word, places) for word in self.arguments])

    def again(self, case):
        """Take up what was interrupted: resume its run if there is one, else repeat it."""
        for folder in sorted(case.glob("runs/*")) if self.runs else ():
            if (folder / EVENTS).exists():
                return command(["run", str(folder), "--resume"])
            if (folder / JOB).exists():
                return command(["run", str(folder)])
        return self.start(case)


def _filled(word, places):
    for name, text in places.items():
        word = word.replace(f"<{name}>", text)
    return word


def command(arguments):
    """Give exit status and what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(arguments)
    return status, printed.getvalue()


def options(**values):
    words = []
    for name, value in values.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return tuple(words)


def _segment(name, image="<FILES>/image.npy", *more, beside=()):
    chosen = options(device="cpu", tile=(1, 32, 32), batch=2, precision="fp32", model="<FILES>/model.safetensors")
    words = ("segment", image, "--output", f"<CASE>/out/{name}", "--run", "<CASE>/runs", *chosen, *more)
    return Work(f"segment to {name}", name, words, beside=beside)


_LABELLED = ("--image", "<FILES>/image.npy", "--label", "<FILES>/labels.npy")
_TRAINING = (*_LABELLED, *options(**OPTIONS), "--option", "width=2", "--option", "depth=2")
WORKS = [
    _segment("o.tif"),
    _segment("o.npy"),
    _segment("o.nii.gz"),
    _segment("o.zarr"),
    _segment("o.png", "<FILES>/plane.npy"),
    _segment("objects.tif", "<FILES>/image.npy", "--objects", "components", beside=("objects_objects.csv",)),
    Work(
        "train",
        "m.safetensors",
        ("train", *_TRAINING, "--output", "<CASE>/out/m.safetensors", "--run", "<CASE>/runs"),
        replaces=False,
        partial=True,
    ),
    Work(
        "clean",
        "c.tif",
        ("clean", "<FILES>/labels.npy", "--output", "<CASE>/out/c.tif", "--objects", "components"),
        beside=("c_objects.csv",),
        runs=False,
    ),
    Work(
        "convert",
        "set.h5",
        ("convert", "<FILES>/set", "--modalities", "t1", "--labels", "seg", "--output", "<CASE>/out/set.h5"),
        replaces=False,
        runs=False,
    ),
    Work(
        "sweep",
        "best.safetensors",
        (
            "sweep",
            *_TRAINING,
            "--losses",
            "ce",
            "dice",
            "--run",
            "<CASE>/runs",
            "--output",
            "<CASE>/out/best.safetensors",
        ),
        replaces=False,
        runs=False,
    ),
]


def write_more_inputs(files):
    """Write what some of the works need beside an image, its labels and a model."""
    np.save(files / "plane.npy", np.load(files / "image.npy")[0])
    for name in ("p1", "p2"):
        (files / "set" / name).mkdir(parents=True)
        rng = np.random.default_rng(len(name))
        for kind in ("t1", "seg"):
            array = rng.integers(0, 2, (10, 12, 9)).astype(np.float32)
            nib.save(nib.Nifti1Image(array, np.eye(4)), files / "set" / name / f"{name}_{kind}.nii.gz")


def reference_of(work, files):
    """Give the result without faults, and how many calls of each kind of fault there are."""
    if not work.reference:
        for kind in ("EIO", "ENOSPC"):
            case = new_case(work, files, f"reference-{kind}")
            with happening(Faults(case, kind)) as faults:
                status, printed = work.start(case)
            assert status == 0, printed
            work.reference[kind] = len(faults.calls)
            work.reference["bytes"] = content(case / "out" / work.output)
            work.reference["beside"] = {name: content(case / "out" / name) for name in work.beside}
            names = {path.name for path in (case / "out").iterdir()}
            assert names == {work.output, *work.beside}, names
            shutil.rmtree(case)
    return work.reference


def calls_of(work, files, kind):
    reference = reference_of(work, files)
    return reference["ENOSPC" if kind == "ENOSPC" else "EIO"]


def new_case(work, files, name):
    """Make the folders of a case, with an earlier result in the place of the new one."""
    case = files / f"case-{work.name.replace(' ', '-')}-{name}"
    for folder in ("out", "runs", "cache"):
        (case / folder).mkdir(parents=True)
    os.environ["NAPARI_UNETVNET_CACHE"] = str(case / "cache")
    if work.replaces:
        names = [case / "out" / name for name in (work.output, *work.beside)]
        with delivering(*names) as parts:
            for part in parts:
                _old(part)
    return case


def _old(path):
    if path.suffix == ".zarr":
        path.mkdir()
        (path / "zarr.json").write_text("{}")
    else:
        path.write_bytes(b"old")


def check(work, files, kind, n):
    """Let the n-th call fail, or end the process there; then take the work up again.

    Returns
    -------
    (str, str) or None
        The call that failed; None if there are fewer calls.
    """
    reference = reference_of(work, files)
    case = new_case(work, files, f"{kind}-{n}")
    old = content(case / "out" / work.output)
    faults = Faults(case, kind, n)

    def interrupted():
        with happening(faults):
            return work.start(case)

    if kind == "kill":
        ended, result = in_child(interrupted)
        assert ended in {0, KILLED}, result
        status, printed = result if ended == 0 else (KILLED, "")
        hit = ("kill", str(n)) if ended == KILLED else None
    else:
        status, printed = interrupted()
        hit = faults.hit
    what = f"{work.name}, {kind} at call {n} {hit}: {printed}"
    assert status in ({0, KILLED} if kind == "kill" else {0, 2, 130}), what
    assert "Traceback" not in printed, what
    _check_output(work, case, reference, old, status, what)
    tolerated = kind == "kill" or (hit and hit[0] in REMOVING | {"open"})
    _check_names(work, case, {"part-", f"{work.output}.partial"} | ({TEMPORARY} if tolerated else set()), what)
    if status != 0 or "could not be removed" in printed:
        status, printed = work.again(case)
        assert status == 0, f"{what}\n--- again: {printed}"
        _check_output(work, case, reference, old, 0, f"{what}\n--- again: {printed}")
        _check_names(
            work, case, {TEMPORARY} if tolerated and kind != "kill" else set(), f"{what}\n--- again: {printed}"
        )
    shutil.rmtree(case)
    return hit


def _check_output(work, case, reference, old, status, what):
    """The old result or the whole new one; the new one after a success."""
    now = content(case / "out" / work.output)
    if status == KILLED and now is None and isinstance(old, dict):  # between the two renames of a folder
        assert old in [content(path) for path in (case / "out").glob(f"{TEMPORARY}*")], what
        return
    if now != reference["bytes"] and status == 2 and work.partial and now is not None:
        assert read_card(case / "out" / work.output).steps > 0, what
        return
    assert now == reference["bytes"] or (status != 0 and now == old), what
    if status == 0:
        assert {name: content(case / "out" / name) for name in work.beside} == reference["beside"], what


def _check_names(work, case, beginnings, what):
    """Nothing is left in the folder of the result."""
    names = {path.name for path in (case / "out").iterdir()} - {work.output, *work.beside}
    assert all(name.startswith(tuple(beginnings)) for name in names), (names, what)


def check_viewer(folder, kind, n):
    """Let the n-th call fail while the viewer writes its layers.

    Returns
    -------
    (str, str) or None
        The call that failed; None if there are fewer calls.
    """
    from napari.layers import Image, Labels

    from napari_unetvnet.settings import TrainJob, checked
    from napari_unetvnet.widgets import task
    from napari_unetvnet.widgets.layers import snapshot, write

    values = np.zeros((4, 16, 16), np.uint8)
    values[1, 2:6, 2:6] = 1
    image, labels = Image(values, name="cells"), Labels(values.copy(), name="strokes")

    def prepare(run, cancelled):
        taken = snapshot([image], [labels])
        write(taken, run, cancelled)
        return checked(TrainJob, {"image": taken.files.image, "label": taken.files.label, "steps": 1})

    def launch():
        try:
            task._launched(new_folder("run", folder), prepare, threading.Event())
        except UserError as problem:
            return isinstance(problem, FileProblem) or "cannot be started" in str(problem), str(problem)
        return True, ""

    faults = Faults(folder, kind, n)

    def interrupted():
        with happening(faults):
            return launch()

    if kind == "kill":
        ended, result = in_child(interrupted)
        assert ended in {0, KILLED}, result
        hit = ("kill", str(n)) if ended == KILLED else None
    else:
        (told, text), hit = interrupted(), faults.hit
        assert told, text
        assert text or not hit or hit[0] == "fsync", (hit, text)  # some file systems cannot flush a folder
        assert not (text and list(folder.iterdir())), (hit, text)
    assert (np.asarray(labels.data) == values).all()
    told, text = launch()
    assert told
    assert not text
    for run in folder.iterdir():
        shutil.rmtree(run)
    return hit
