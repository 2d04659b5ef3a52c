"""A TIFF file may hold several images: each is read when it is named, and none is dropped without a word."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from combinations import in_one_case

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import DataProblem, FileProblem, SettingsProblem
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.settings import TrainJob, checked

SHAPE = (6, 10, 12)
STACK = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
SMALL = np.full((4, 4), 7, np.uint16)


def write_pages(path, pages, **how):
    with tifffile.TiffWriter(path, **how) as file:
        for page, options in pages:
            file.write(page, contiguous=False, photometric="minisblack", **options)


@in_one_case("compressed", [(), (5,), (0, 3), (0, 1, 2, 3, 4, 5)])
def test_pages_of_one_size_are_one_stack_however_they_are_stored(tmp_path, compressed):
    plain, packed = {"metadata": None}, {"metadata": None, "compression": "zlib"}
    write_pages(tmp_path / "a.tif", [(page, packed if z in compressed else plain) for z, page in enumerate(STACK)])
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data[0], STACK)


@in_one_case("how", [{}, {"ome": True}])
def test_several_images_are_listed_and_each_can_be_named(tmp_path, how):
    images = [SMALL, *STACK] if not how else [SMALL, STACK]
    path = tmp_path / ("a.ome.tif" if how else "a.tif")
    write_pages(
        path, [(image, {"metadata": {"axes": "ZYX"[-image.ndim :]} if how else None}) for image in images], **how
    )
    sentence = rf"holds 2 images; name one by its number, such as {path.name}:2, .*: 1 \(4 x 4\), 2 \(6 x 10 x 12\)\.$"
    with pytest.raises(DataProblem, match=sentence):
        read_volume(path)
    for number, expected in ((1, SMALL[None]), (2, STACK)):
        volume = read_volume(f"{path}:{number}")
        np.testing.assert_array_equal(volume.data[0], expected)
        assert volume.name == f"a_{number}"
        np.testing.assert_array_equal(read_labels(f"{path}:{number}").data[0], expected)
    with pytest.raises(DataProblem, match=r"has no image 3; .* 2 "):
        read_volume(f"{path}:3")
    with pytest.raises(FileProblem, match=r"There is no file .*b\.tif"):
        read_volume(f"{tmp_path}/b.tif:1")


def test_a_result_does_not_replace_the_file_of_a_named_image(tmp_path, capsys):
    write_pages(tmp_path / "a.tif", [(SMALL, {"metadata": None}), (STACK[0], {"metadata": None})])
    before = (tmp_path / "a.tif").read_bytes()
    assert main(["clean", f"{tmp_path}/a.tif:2", "--output", f"{tmp_path}/a.tif", "--min-size", "2"]) == 2
    given = ["segment", f"{tmp_path}/b.npy|{tmp_path}/a.tif:2", "--model", "m", "--output", f"{tmp_path}/a.tif"]
    assert main(given) == 2
    assert capsys.readouterr().err.count("would replace") == 2
    for job in ({"image": "b.npy", "label": f"{tmp_path}/a.tif:1"}, {"image": f"{tmp_path}/a.tif:1", "label": "b.npy"}):
        with pytest.raises(SettingsProblem, match="would replace"):
            checked(TrainJob, job | {"output": str(tmp_path / "a.tif")})
    assert (tmp_path / "a.tif").read_bytes() == before


def test_each_image_has_a_voxel_size_of_its_own(tmp_path):
    facts = [{"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, {"axes": "ZYX", "PhysicalSizeX": 2.0, "PhysicalSizeY": 3.0}]
    images = [(image, {"metadata": each}) for image, each in zip((SMALL, STACK), facts, strict=True)]
    write_pages(tmp_path / "a.ome.tif", images, ome=True)
    assert read_volume(f"{tmp_path}/a.ome.tif:1").spacing == (1, 0.5, 0.5)
    assert read_volume(f"{tmp_path}/a.ome.tif:2").spacing == (1, 3, 2)


def test_coarser_copies_are_no_images_of_their_own(tmp_path):
    options = {"metadata": None}
    write_pages(tmp_path / "a.tif", [(STACK[0], options), (STACK[0, ::2, ::2], options | {"subfiletype": 1})])
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data[0, 0], STACK[0])


def ome_set(folder, names=("s1.ome.tif", "s2.ome.tif")):
    """Write a plane to each of a set of files that describe the whole stack."""
    places = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{z:032d}</UUID></TiffData>'
        for z, name in enumerate(names)
    )
    for z, name in enumerate(names):
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{z:032d}"><Image ID="Image:0" Name="a"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            'Type="uint16" SizeX="12" SizeY="10" SizeZ="2" SizeC="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5" '
            f'PhysicalSizeZ="2"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{places}</Pixels></Image></OME>'
        )
        # The files differ in size: each page is compared with that of its own.
        tifffile.imwrite(
            folder / name, STACK[0] + z, description=text, metadata=None, compression="zlib" if z else None
        )


def test_a_set_of_ome_files_is_read_from_any_of_them(tmp_path):
    ome_set(tmp_path)
    for name in ("s1", "s2"):
        volume = read_volume(tmp_path / f"{name}.ome.tif")
        np.testing.assert_array_equal(volume.data[0], [STACK[0], STACK[0] + 1])
        assert volume.spacing == (2, 0.5, 0.5)


def test_a_missing_file_of_a_set_is_named(tmp_path):
    ome_set(tmp_path)
    (tmp_path / "s2.ome.tif").unlink()
    with pytest.raises(FileProblem, match=r"^s1\.ome\.tif is one of a set of files; .* beside it: s2\.ome\.tif\.$"):
        read_volume(tmp_path / "s1.ome.tif")
