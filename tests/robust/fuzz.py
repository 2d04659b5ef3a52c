"""Mutated files for each reader, the same ones each time: only a sentence or a value comes out, within bounds."""

from __future__ import annotations

import csv
import json
import random
import resource
import shutil
import signal
import traceback
import warnings
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from work import TINY, in_child

from napari_unetvnet.errors import UserError

SECONDS, BYTES = 20, 2 << 30
"""What reading one small file may take: time, and address space beyond that of the tests."""
AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])
BATCH = 60
CORPUS = Path(__file__).parent / "corpus"
"""Inputs that once ended in a traceback, a hang or a killed process; a folder for each reader."""


def _array():
    return (np.arange(6 * 20 * 24) % 251).astype(np.uint16).reshape(6, 20, 24)


def _nifti(path):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(_array().T, AFFINE), path)


def _tiff(path):
    import tifffile

    tifffile.imwrite(path, _array(), imagej=True, resolution=(2, 2), metadata={"spacing": 2, "unit": "um"})


def _tiles(path):
    import tifffile

    tifffile.imwrite(path, _array(), tile=(16, 16), compression="zlib", ome=True)


def _picture(path):
    from PIL import Image

    Image.fromarray(_array()[0].astype(np.uint8)).save(path)


def _hdf5(path):
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("image", data=_array(), chunks=(2, 10, 12), compression="gzip")
        data.attrs["element_size_um"] = (2.0, 0.5, 0.5)


def _zarr(version):
    def make(path):
        import zarr

        group = zarr.open_group(str(path), mode="w", zarr_format=version)
        group.create_array("0", data=_array(), chunks=(3, 20, 24))
        axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
        scale = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]
        image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "name": "a"}
        image |= {} if version == 3 else {"version": "0.4"}
        group.attrs.update(
            {"ome": {"version": "0.5", "multiscales": [image]}} if version == 3 else {"multiscales": [image]}
        )

    return make


def _itk(path):
    import SimpleITK

    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(_array()), str(path), useCompression=path.suffix == ".nrrd")


def _read_image(path):
    from napari_unetvnet.images.io import read_labels, read_volume

    volume = read_volume(path)
    if np.prod(volume.data.shape, dtype=float) < 1 << 24:
        np.asarray(volume.data[:, :, :, :])
        with suppress(UserError):
            read_labels(path)


def _read_model(path):
    from napari_unetvnet.model.model import load_model
    from napari_unetvnet.settings import SegmentSettings

    load_model(path, SegmentSettings(device="cpu"))


def _read_settings(path):
    from napari_unetvnet.runs import read_settings
    from napari_unetvnet.settings import TrainJob, checked

    values = read_settings(path)
    values.pop("command", None)
    checked(TrainJob, values)


def _read_job(path):
    from napari_unetvnet import runs

    runs.read(path.parent)


def _read_events(path):
    from napari_unetvnet import runs

    runs.follow(path.parent)


def _read_pairs(path):
    from napari_unetvnet.images.io import read_pairs_csv

    read_pairs_csv(path)


def _job(path):
    path.write_text(json.dumps({"command": "train", "image": "a.npy", "label": "b.npy", **TINY}, indent=2))


def _events(path):
    from napari_unetvnet.events import Notice, RunFinished, SlabDone, to_line

    events = [Notice("One."), SlabDone(0, 4, 9), SlabDone(4, 9, 9), RunFinished("failed", ("a", "b"), {"labels": "c"})]
    path.write_text("".join(to_line(event) + "\n" for event in events))


def _pairs(path):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "split"], ["a.tif", "b.tif", "train"], ["c.tif", "d.tif", ""]])


def readers(files):
    """Give name, file name, maker and reader of each kind of file; ``files`` holds a model."""
    images = {
        "nii": ("a.nii", _nifti), "nii.gz": ("a.nii.gz", _nifti),
        "tif": ("a.tif", _tiff), "tif tiles": ("a.tif", _tiles),
        "png": ("a.png", _picture), "jpg": ("a.jpg", _picture), "npy": ("a.npy", lambda path: np.save(path, _array())),
        "h5": ("a.h5", _hdf5), "zarr 2": ("a.zarr", _zarr(2)), "zarr 3": ("a.zarr", _zarr(3)),
        "nrrd": ("a.nrrd", _itk), "mha": ("a.mha", _itk),
    }  # fmt: skip
    rows = {name: (file, make, _read_image) for name, (file, make) in images.items()}
    rows["model"] = ("a.safetensors", lambda path: shutil.copyfile(files / "model.safetensors", path), _read_model)
    rows["settings"] = ("settings.json", _job, _read_settings)
    rows["job"] = ("job.json", _job, _read_job)
    rows["events"] = ("events.jsonl", _events, _read_events)
    rows["pairs"] = ("pairs.csv", _pairs, _read_pairs)
    return rows


def mutated(path, seed):
    """Change a file, or one of the files of a folder."""
    rng = random.Random(seed)  # noqa: S311
    if path.is_dir():
        path = rng.choice(sorted(each for each in path.rglob("*") if each.is_file()))
    data = bytearray(path.read_bytes())
    is_json = path.suffix in {".json", ".jsonl"} or path.name in {".zarray", ".zgroup", ".zattrs"}
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        kinds = [_flip, _flip, _cut, _zero, _insert, _header, _double, *([_value] * 6 if is_json else [])]
        data = rng.choice(kinds)(rng, data) or data
    path.write_bytes(data)


def _flip(rng, data):
    for _ in range(rng.choice([1, 1, 3, 20])):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _header(rng, data):
    """Give a field near the beginning an extreme value."""
    place, width = rng.randrange(max(1, min(400, len(data)))), rng.choice([1, 2, 4, 8])
    data[place : place + width] = rng.choice([b"\xff", b"\x00", b"\x7f", b"\x80"]) * width


def _cut(rng, data):
    return data[: rng.randrange(len(data) + 1)]


def _zero(rng, data):
    place, width = rng.randrange(len(data) + 1), rng.choice([4, 64, 1024])
    data[place : place + width] = bytes(len(data[place : place + width]))


def _insert(rng, data):
    place = rng.choice([0, len(data), rng.randrange(len(data) + 1)])
    data[place:place] = rng.choice(
        [rng.randbytes(20), b"[" * 100_000, b"\xff\xfe", b"9" * 5000, b"\0" * 100, b"\x1b[2J"]
    )


def _double(rng, data):
    place, width = rng.randrange(len(data) + 1), rng.choice([8, 200])
    data[place:place] = data[place : place + width]


def _value(rng, data):
    """Replace a value of a JSON text, or of one of its lines."""
    lines = data.decode("utf-8", "replace").splitlines()
    try:
        index = rng.randrange(len(lines)) if len(lines) > 1 and lines[0].endswith("}") else None
        value = json.loads(lines[index] if index is not None else data)
    except (ValueError, RecursionError):
        return None
    strange = [
        None, True, -1, 0, 1e300, 2**70, 10**30, "", "x" * 5000, "\x1b[31m", "../../x", [], {}, [[]], {"": None}, 0.5,
        [2**40] * 3, ["a", 1, None], "NaN", float("nan"), float("inf"), -(2**31),
    ]  # fmt: skip
    spots = list(_spots(value))
    if not spots:
        return None
    holder, key = rng.choice(spots)
    holder[key] = rng.choice(strange)
    text = json.dumps(value)
    if index is not None:
        lines[index] = text
        text = "\n".join(lines) + "\n"
    return bytearray(text, "utf-8")


def _spots(value):
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _spots(value[key])


@contextmanager
def _limited(seconds):
    """Let what takes longer fail."""

    def late(*_):
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(read, path):
    """Read a file.

    Returns
    -------
    str
        "read", "sentence", or the traceback of what should not happen.
    """
    try:
        with _limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except UserError as problem:
        return "sentence" if all(problem.lines) and problem.lines else f"no sentence: {problem!r}"
    except BaseException:  # noqa: BLE001 (all that may happen is counted)
        return traceback.format_exc()
    return "read"


def _address_space():
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    return pages * resource.getpagesize()


def _batch(row, folder, name, numbers, progress):
    """Read some mutated files in a process whose memory is limited."""
    file, _, read = row
    if used := _address_space():
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    counts, bad = {"read": 0, "sentence": 0}, []
    for number in numbers:
        progress.write_text(str(number))
        path = _restored(folder, file)
        mutated(path, f"{name} {number}")
        kept = outcome(read, path)
        if kept in counts:
            counts[kept] += 1
        else:
            bad.append((number, kept))
    return counts, bad


def _restored(folder, file):
    shutil.rmtree(folder / "work", ignore_errors=True)
    (folder / "work").mkdir()
    base, path = folder / "base" / file, folder / "work" / file
    (shutil.copytree if base.is_dir() else shutil.copyfile)(base, path)
    return path


def fuzz(row, folder, name, numbers):
    """Read mutated files in child processes.

    Returns
    -------
    counts : dict of str to int
        Of those that were "read", and those that gave a "sentence".
    bad : list of (int, str)
        The others: number and traceback, or how the process ended.
    """
    file, make, _ = row
    (folder / "base").mkdir(parents=True)
    make(folder / "base" / file)
    assert (before := outcome(row[2], folder / "base" / file)) == "read", before
    counts, bad, left = {"read": 0, "sentence": 0}, [], list(numbers)
    progress = folder / "progress"
    while left:
        some = left[:BATCH]
        status, result = in_child(lambda some=some: _batch(row, folder, name, some, progress))
        if status == 0:
            found, worse = result
            counts = {kind: counts[kind] + found[kind] for kind in counts}
            bad += worse
            left = left[BATCH:]
        else:  # the one that ended the process; those before it are read again, in a batch of their own
            last = int(progress.read_text())
            bad.append((last, f"the process ended with {status}: {result}"))
            left.remove(last)
    shutil.rmtree(folder / "work", ignore_errors=True)
    return counts, bad


def keep(row, folder, name, number):
    """Put an input into the corpus, which is read in every run of the tests."""
    file = row[0]
    (folder / "base").mkdir(parents=True, exist_ok=True)
    path = _restored(folder, file)
    mutated(path, f"{name} {number}")
    content = path.read_bytes() if path.is_file() else str(sorted(path.rglob("*"))).encode() + str(number).encode()
    place = CORPUS / name.replace(" ", "-") / f"{zlib.crc32(content):08x}" / file
    place.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, place)
    return place
