"""Files of strangers: small ones that declare gigabytes, lead elsewhere, or are no files, each refused in a sentence.

All are opened by one child process that may take little memory, because a child costs seconds. Beside them lies a
folder that must stay as it was.
"""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import warnings
import zlib

import h5py
import nibabel
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

MEMORY = 600 << 20
"""What the child may take beyond what its libraries take."""
CHILD = f"""
import json, pathlib, re, resource, sys, time
import h5py, nibabel, psutil, tifffile, zarr
from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin
from napari_unetvnet.errors import UserError
from napari_unetvnet.images.io import read_pairs_csv, read_volume
try:
    import SimpleITK
except ImportError:
    pass
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + {MEMORY},) * 2)
for name in sys.argv[1:]:
    start = time.perf_counter()
    try:
        if name.endswith(".csv"):
            read_pairs_csv(name)
        else:
            read_volume(name, axes="" if name.endswith(".tif") else "zyx").data[:, :1, :, :]
        said = "no refusal"
    except UserError as error:
        said = str(error)
    except BaseException as error:
        said = f"no sentence: {{error!r}}"
    peak = int(re.search("VmHWM: *\\t *(.*) kB", pathlib.Path("/proc/self/status").read_text())[1])
    print(json.dumps([name, said, time.perf_counter() - start, peak]))
"""


def zeros(count, wbits=zlib.MAX_WBITS):
    """Compress zero bytes, a MiB at a time."""
    packer, block = zlib.compressobj(1, zlib.DEFLATED, wbits), bytes(1 << 20)
    packed = b"".join(packer.compress(block) for _ in range(count >> 20))
    return packed + packer.compress(bytes(count % (1 << 20))) + packer.flush()


def png(path, edge):
    """Write a picture of one bit each pixel."""

    def part(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = part(b"IHDR", struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0))
    rows = part(b"IDAT", zeros(1 << 20))  # the rest is missing, which no one should get to
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + rows + part(b"IEND", b""))


def jpeg(path, edge):
    Image.new("L", (16, 16)).save(path)
    content = path.read_bytes()
    place = content.index(b"\xff\xc0") + 5
    path.write_bytes(content[:place] + struct.pack(">HH", edge, edge) + content[place + 4 :])


def gif(path, edge):
    frame = b"," + struct.pack("<HHHH", 0, 0, edge, edge) + b"\0\x08\x01\0\0;"
    path.write_bytes(b"GIF89a" + struct.pack("<HH", edge, edge) + b"\xf7\0\0" + bytes(768) + frame)


def nifti(path, shape):
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype("u1")
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(gzip.compress(bytes(header.binaryblock) + bytes(4)))


def tiff(path, edge):
    """Write a deflated picture, and let its header state another size."""
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[tag].overwrite(edge)


def zarr_folder(path, shape, form=3):
    """Write an array without a chunk, and let its metadata state a shape, which is that of its only chunk, too."""
    zarr.create_array(str(path), shape=(1,) * len(shape), dtype="u1", zarr_format=form)
    file = path / ("zarr.json" if form == 3 else ".zarray")
    stored = json.loads(file.read_text())
    stored["shape"] = shape
    chunk = shape if max(shape) < 10**6 and min(shape) > 0 else [1] * len(shape)
    if form == 3:
        stored["chunk_grid"]["configuration"]["chunk_shape"] = chunk
    else:
        stored["chunks"] = chunk
    file.write_text(json.dumps(stored))


def hdf5(path, edge):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("a", (1, edge, edge), "u1", chunks=(1, edge, edge), compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), zeros(1 << 20))


def too_large(folder):
    nifti(folder / "a.nii.gz", (3000, 3000, 1000))
    tiff(folder / "a.tif", 60000)
    png(folder / "a.png", 60000)
    jpeg(folder / "a.jpg", 60000)
    gif(folder / "a.gif", 60000)
    zarr_folder(folder / "two.zarr", [1, 60000, 60000], form=2)
    zarr_folder(folder / "three.zarr", [1, 60000, 60000])
    hdf5(folder / "a.h5", 60000)
    zarr_folder(folder / "entry.zarr", [60000, 60000, 1])
    os.truncate(folder / "entry.zarr" / "zarr.json", 60000**2)
    (folder / "a.nrrd").write_bytes(
        b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 60000 60000 1\nencoding: gzip\n\n" + gzip.compress(bytes(9))
    )


def no_files(folder):
    for name in ("pipe.tif", "pipe.npy", "pipe.csv", "pipe.nii.gz"):
        os.mkfifo(folder / name)
    for name in ("device.png", "device.csv", "device.h5"):
        (folder / name).symlink_to("/dev/zero")


def strange_axes(folder):
    for name, shape in (("none", [3, 0, 4]), ("below", [3, -1, 4]), ("many", [10**30, 4, 4]), ("long", [10**15, 4, 4])):
        zarr_folder(folder / f"{name}.zarr", shape)


def missing_voxels(folder):
    nifti(folder / "a.nii.gz", (500, 500, 400))


def zarr_chunk(path, content, form, **facts):
    """Write an array of one chunk of 1 x 64 x 64 bytes, its content and some facts of its metadata."""
    zarr_folder(path, [1, 64, 64], form)
    file, chunk = path / ("zarr.json" if form == 3 else ".zarray"), path / ("0.0.0" if form == 2 else "c/0/0/0")
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    chunk.parent.mkdir(parents=True, exist_ok=True)
    chunk.write_bytes(content)


def packed_beyond(folder):
    """Write chunks of 4096 declared bytes that unpack to 64 MiB."""
    packers = {
        "gzip": (zeros(1 << 26, 31), {"level": 5}), "zlib": (zeros(1 << 26), {"level": 5}),
        "bz2": (bz2.compress(bytes(1 << 26)), {"level": 5}),
        "zstd": (numcodecs.Zstd().encode(bytes(1 << 26)), {"level": 0, "checksum": False}),
        "blosc": (
            numcodecs.Blosc().encode(bytes(1 << 26)),
            {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0, "typesize": 1},
        ),
    }  # fmt: skip
    for name, (packed, options) in packers.items():
        codec = {"name": f"numcodecs.{name}" if name in {"zlib", "bz2"} else name, "configuration": options}
        zarr_chunk(folder / f"{name}3.zarr", packed, 3, codecs=[{"name": "bytes"}, codec])
        zarr_chunk(folder / f"{name}2.zarr", packed, 2, compressor={"id": name})
    for name in ("gzip", "zstd"):
        packed, options = packers[name]
        codec = {"name": name, "configuration": options}
        facts = {"chunk_shape": [1, 64, 64], "codecs": [{"name": "bytes"}, codec], "index_codecs": [{"name": "bytes"}]}
        index = np.array([0, len(packed)], "<u8").tobytes()
        shards = [{"name": "sharding_indexed", "configuration": facts | {"index_location": "end"}}]
        zarr_chunk(folder / f"{name}-shards.zarr", packed + index, 3, codecs=shards)
    for form, packed in ((2, packers["blosc"][0]), (3, packers["zstd"][0])):
        group = zarr.open_group(folder / f"group{form}.zarr", mode="w", zarr_format=form)
        group.create_array("a", data=np.ones((1, 64, 64), np.uint8))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr says of version 3 that this is not in its text
            zarr.consolidate_metadata(group.store)
        (folder / f"group{form}.zarr" / "a" / ("0.0.0" if form == 2 else "c/0/0/0")).write_bytes(packed)
    with h5py.File(folder / "a.h5", "w") as file:
        data = file.create_dataset("a", (1, 64, 64), "u1", chunks=(1, 64, 64), compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), packers["zlib"][0])


def leads_elsewhere(folder):
    other = folder.parent / "victim" / "other.h5"
    layout = h5py.VirtualLayout((1, 8, 8), "u1")
    layout[:] = h5py.VirtualSource(other, "a", (1, 8, 8))
    with h5py.File(folder / "external.h5", "w") as file:
        file.create_dataset("a", (1, 8, 8), "u1", external=[(str(folder.parent / "victim" / "thesis.txt"), 0, 64)])
    with h5py.File(folder / "virtual.h5", "w") as file:
        file.create_virtual_dataset("a", layout)
    with h5py.File(folder / "link.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(other), "a")
        file["b/soft"] = h5py.SoftLink("/a")
    with h5py.File(folder / "inner.h5", "w") as file:  # by a file beside it
        file["a"] = h5py.ExternalLink("external.h5", "a")
    tifffile.imwrite(folder / "a.ome.tif", np.zeros((2, 8, 8), np.uint8), ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(folder / "a.ome.tif", mode="r+b") as file:
        text = file.ome_metadata.replace('<TiffData IFD="0" PlaneCount="2"/>', "SET")
        uuid = '<UUID FileName="../victim/other.tif">urn:uuid:00000000-0000-0000-0000-000000000000</UUID>'
        sets = "".join(f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1">{uuid}</TiffData>' for z in (0, 1))
        assert "SET" in text
        file.pages[0].tags["ImageDescription"].overwrite(text.replace("SET", sets))
    header = "NDims = 3\nDimSize = 4 4 1\nElementType = MET_UCHAR\nElementDataFile = ../victim/thesis.txt\n"
    (folder / "a.mhd").write_text(header)
    for form, chunk in ((2, "0.0.0"), (3, "c/0/0/0")):
        zarr.create_array(str(folder / f"{form}.zarr"), data=np.ones((1, 8, 8), np.uint8), zarr_format=form)
        link = folder / f"{form}.zarr" / chunk
        link.unlink()
        link.symlink_to(folder.parent / "victim" / "thesis.txt")


class Payload:
    """What a pickle does when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.unlink, (str(self.target),)


def codecs(folder):
    """Write arrays of codecs that run code, or that no one knows, with a payload that deletes a file."""
    payload = pickle.dumps(Payload(folder.parent / "victim" / "thesis.txt"))
    pickled, unpacked = {"id": "pickle", "protocol": 5}, {"compressor": None}
    for name, facts in {
        "compressor": {"compressor": pickled},
        "filter": {"filters": [pickled], **unpacked},
        "object": {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, pickled], **unpacked},
        "unknown": {"compressor": {"id": "module:function"}},
    }.items():
        zarr_chunk(folder / f"{name}.zarr", payload, 2, **facts)
    pickled = {"name": "numcodecs.pickle", "configuration": {}}
    inner = {"chunk_shape": [1, 8, 8], "codecs": [pickled], "index_codecs": [{"name": "bytes"}]}
    for name, chain in {
        "third": [{"name": "bytes"}, pickled],
        "shards": [{"name": "sharding_indexed", "configuration": inner}],
        "twice": [{"name": "bytes"}, {"name": "gzip"}, {"name": "gzip"}],
    }.items():
        zarr_chunk(folder / f"{name}.zarr", payload, 3, codecs=chain)


def objects(folder):
    """Write numpy arrays of Python objects, whose payload deletes a file."""
    payload = Payload(folder.parent / "victim" / "thesis.txt")
    np.save(folder / "a.npy", np.array([[payload, payload]], object), allow_pickle=True)
    with (folder / "header.npy").open("wb") as file:  # code in place of a header
        text = "__import__('os').unlink('thesis.txt')".ljust(117) + "\n"
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())


INSIDE = {"link.h5": ":/b/soft", "inner.h5": ":/a"}
CORPUS = {
    too_large: r"NAME declares (chunks of )?(\d+ x )*(60000 x 60000|3000 x 3000 x 1000|3600000000)( x 1)? values of "
    r"(uint8|bool), which are unpacked at once and take \d+\.\d\d GiB of memory, but 0\.\d\d GiB are free; ",
    no_files: r".*NAME is a device, a pipe or a socket, or a link to one, and no file; name a file\.",
    missing_voxels: r"NAME cannot be read: .* declares 100000000 bytes of voxels, and 100000000 of them are missing",
    packed_beyond: r"NAME has a chunk of \d+ bytes that unpacks to more than the (4160|32768) bytes that its array",
    leads_elsewhere: r"(NAME|external.h5)(: \S+ is a link to| leads to) .*, outside (its own|the) folder",
    codecs: r"NAME is (stored with the codec (pickle|module:function), which is not used|packed more than once)",
    objects: r"NAME cannot be read: .* not what its ending says \((Array can't be memory-m|malformed)",
    strange_axes: r"NAME (declares (3 x 0 x 4|1.0e\+(30|15) x 4 x 4) voxels, but |cannot be read: )",
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits and pipes of Linux")
def test_files_of_strangers_are_refused_in_a_sentence(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("years")
    with h5py.File(victim / "other.h5", "w") as file:
        file["a"] = np.ones((1, 8, 8), np.uint8)
    tifffile.imwrite(victim / "other.tif", np.zeros((8, 8), np.uint8))
    whole = (victim / "other.h5").read_bytes()
    expected = {}
    for make, sentence in CORPUS.items():
        folder = tmp_path / make.__name__
        folder.mkdir()
        make(folder)
        expected |= {
            str(path) + INSIDE.get(path.name, ""): sentence.replace("NAME", path.name) for path in folder.iterdir()
        }
    if importlib.util.find_spec("SimpleITK") is None:
        expected = {name: said for name, said in expected.items() if not name.endswith((".nrrd", ".mhd"))}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *expected], capture_output=True, text=True, timeout=100, check=False
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(expected), done.stderr
    wrong = [(name, said) for name, said, *_ in rows if not re.match(expected[name], said)]
    assert not wrong
    assert max(seconds for *_, seconds, _ in rows) < 5
    assert max(peak for *_, peak in rows) < 300 << 10  # KiB, the libraries among them
    assert (victim / "thesis.txt").read_text() == "years"
    assert (victim / "other.h5").read_bytes() == whole
