"""A result lies on its image: what a file says of space comes back, in whatever program both are opened."""

from __future__ import annotations

import itertools
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from combinations import in_one_case
from scipy.spatial.transform import Rotation

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import read_labels, read_volume, write_labels, write_probabilities, write_uncertainty
from napari_unetvnet.images.units import MICRO

SHAPE = (4, 3, 2)
"""Voxels x, y, z."""
VOXELS = np.arange(24, dtype=np.uint8).reshape(SHAPE)
SIZES = (0.7, 0.8, 3.0)
FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "xyzt_units", "descrip", "intent_code", "intent_name",
)  # fmt: skip


def affine_of(angles=(0, 0, 0), origin=(10, -20, 30), sizes=SIZES, shear=0.0):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(sizes)
    affine[:3, 3], affine[0, 1] = origin, affine[0, 1] + shear
    return affine


STRAIGHT, OBLIQUE, OTHER = affine_of(), affine_of((10, 20, 30)), affine_of((-5, 3, 0), (1, 2, 3))
FORMS = {
    "no codes": ((None, 0), (None, 0)),
    "qform only": ((OBLIQUE, 1), (None, 0)),
    "sform only": ((None, 0), (OBLIQUE, 2)),
    "both equal": ((OBLIQUE, 1), (OBLIQUE, 1)),
    "both different": ((OBLIQUE, 1), (OTHER, 4)),
    "left-handed": ((np.diag([-1, 1, 1, 1]) @ OBLIQUE, 3), (OTHER, 3)),
    "straight qform, sheared sform": ((STRAIGHT, 1), (affine_of(shear=0.3), 1)),
    "sform with other voxel sizes": ((STRAIGHT, 1), (affine_of(sizes=(1, 2, 4)), 2)),
}


def save_nifti(path, forms, voxels=VOXELS, kind=nibabel.Nifti1Image):
    (qform, qcode), (sform, scode) = forms
    image = kind(voxels, None)
    image.header["pixdim"][1:4] = SIZES
    if qform is not None:
        image.header.set_qform(qform, qcode)
    if sform is not None:
        image.header.set_sform(sform, scode)
    image.header["qform_code"], image.header["sform_code"] = qcode, scode
    image.header.set_xyzt_units(2)
    image.header["descrip"] = b"study 7"
    image.header.set_intent("estimate", name="thickness")
    nibabel.save(image, path)


def check_same_header(path, other):
    ours, theirs = nibabel.load(path), nibabel.load(other)
    for name in FIELDS:
        assert np.array_equal(ours.header[name], theirs.header[name].astype(ours.header[name].dtype)), name
    assert np.array_equal(ours.header["pixdim"][:4], theirs.header["pixdim"][:4])
    assert np.allclose(ours.affine, theirs.affine, rtol=1e-6)


@in_one_case("name", FORMS)
@in_one_case("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_nifti_result_has_both_forms_and_their_codes(tmp_path, name, kind):
    save_nifti(tmp_path / "image.nii", FORMS[name], kind=kind)
    image = read_volume(tmp_path / "image.nii")
    write_labels(tmp_path / "labels.nii.gz", image.data[0], image)
    write_probabilities(tmp_path / "p.nii", np.zeros((2, *image.shape), np.float32), image)
    write_uncertainty(tmp_path / "u.nii", np.zeros(image.shape, np.float32), image)
    for result in ("labels.nii.gz", "p.nii", "u.nii"):
        check_same_header(tmp_path / result, tmp_path / "image.nii")
    assert nibabel.load(tmp_path / "p.nii").header.get_zooms()[3] == 1


@in_one_case("name", FORMS)
def test_simple_itk_opens_a_result_where_its_image_lies(tmp_path, name):
    itk = pytest.importorskip("SimpleITK", reason="SimpleITK, the witness, is not installed")
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    save_nifti(tmp_path / "image.nii", FORMS[name])
    image = read_volume(tmp_path / "image.nii")
    write_labels(tmp_path / "labels.nii.gz", image.data[0], image)
    ours, theirs = (itk.ReadImage(tmp_path / each) for each in ("labels.nii.gz", "image.nii"))
    for fact in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
        assert getattr(ours, fact)() == getattr(theirs, fact)()


def test_a_flat_nifti_and_its_result_share_a_header(tmp_path):
    save_nifti(tmp_path / "image.nii", FORMS["both equal"], VOXELS[..., 0])
    image = read_volume(tmp_path / "image.nii")
    write_labels(tmp_path / "labels.nii", image.data[0], image)
    check_same_header(tmp_path / "labels.nii", tmp_path / "image.nii")


def test_an_intent_that_speaks_of_further_axes_is_left_out(tmp_path):
    save_nifti(tmp_path / "image.nii", FORMS["both equal"])
    nifti = nibabel.load(tmp_path / "image.nii")
    nifti.header.set_intent("vector", name="flow")
    nibabel.save(nifti, tmp_path / "vector.nii")
    image = read_volume(tmp_path / "vector.nii")
    write_labels(tmp_path / "labels.nii", image.data[0], image)
    assert nibabel.load(tmp_path / "labels.nii").header.get_intent()[0] == "none"


def test_another_grid_does_not_keep_the_header_of_its_image(tmp_path):
    save_nifti(tmp_path / "image.nii", FORMS["both different"])
    geometry = read_volume(tmp_path / "image.nii").geometry
    part = geometry.cropped((1, 0, 2))
    assert not part.header
    for ours, whole in ((part.affine, OTHER), (part.other_affine, OBLIQUE)):
        assert np.allclose(ours @ (0, 0, 0, 1), whole @ (2, 0, 1, 1), atol=1e-5)


def test_voxels_that_are_not_from_nifti_get_both_forms(tmp_path):
    geometry = Geometry.upright((3.0, 0.5, 0.25), "micrometer", (7, 8, 9))
    for name, own, qcode in (("a", geometry, 2), ("b", replace(geometry, affine=affine_of(shear=0.3)), 0)):
        image = replace(read_volume_of(tmp_path), geometry=own)
        write_labels(tmp_path / f"{name}.nii", image.data[0], image)
        header = nibabel.load(tmp_path / f"{name}.nii").header
        assert (int(header["qform_code"]), int(header["sform_code"])) == (qcode, 2)
        assert np.allclose(header.get_sform(), own.affine)
        assert header.get_xyzt_units()[0] == "micron"
    assert np.allclose(nibabel.load(tmp_path / "a.nii").header.get_qform(), geometry.affine)


def read_volume_of(folder):
    np.save(folder / "image.npy", VOXELS.T)
    return read_volume(folder / "image.npy", axes="zyx")


# Microscope formats ---------------------------------------------------------------------------------------------------

ORIGIN = (100.0, 200.0, 1e5)
PLACED = (".ome.tif", ".tif", ".zarr", ".nii.gz")


def ome_zarr(path, axes, transforms, image_transforms=(), units=("micrometer",) * 3, version="0.5"):
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    voxels = VOXELS.T.reshape((1,) * (len(axes) - 3) + SHAPE[::-1])
    group.create_array("0", data=voxels, chunks=voxels.shape)
    spaces = [{"name": axis, "type": "space", "unit": unit} for axis, unit in zip("zyx", units, strict=True)]
    others = [{"name": axis, "type": "time" if axis == "t" else "channel"} for axis in axes[:-3]]
    datasets = [{"path": "0", "coordinateTransformations": transforms}]
    image = {"axes": others + spaces, "datasets": datasets, "version": version}
    if image_transforms:
        image["coordinateTransformations"] = image_transforms
    metadata = {"version": version, "multiscales": [image]}
    group.attrs.update({"ome": metadata} if version == "0.5" else metadata)


def scale(*sizes):
    return {"type": "scale", "scale": sizes}


def translation(*places):
    return {"type": "translation", "translation": places}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@in_one_case(
    "case",
    [
        ("zyx", [scale(3, 0.5, 0.25), translation(*ORIGIN)], ()),
        ("tczyx", [scale(9, 9, 3, 0.5, 0.25), translation(9, 9, *ORIGIN)], ()),
        # transforms of the image come after those of the level
        ("zyx", [scale(1.5, 0.25, 0.125), translation(50, 100, 4e4)], (scale(2, 2, 2), translation(0, 0, 2e4))),
    ],
)
def test_the_translation_of_an_ome_zarr_comes_back(tmp_path, version, case):
    axes, own, more = case
    ome_zarr(tmp_path / "image.zarr", axes, own, more, version=version)
    image = read_volume(tmp_path / "image.zarr")
    assert (image.spacing, image.unit, image.geometry.origin) == ((3, 0.5, 0.25), "micrometer", ORIGIN)
    for ending in PLACED:
        write_labels(tmp_path / f"labels{ending}", image.data[0], image)
        back = read_labels(tmp_path / f"labels{ending}").geometry
        assert back.origin == pytest.approx(ORIGIN)
        assert (back.spacing, back.unit) == (pytest.approx(image.spacing), image.unit)


def test_axes_of_an_ome_zarr_may_have_units_of_their_own(tmp_path):
    transforms = [scale(1, 500, 250), translation(2, 3000, 4000)]
    ome_zarr(tmp_path / "image.zarr", "zyx", transforms, units=("micrometer", "nanometer", "nanometer"))
    geometry = read_volume(tmp_path / "image.zarr").geometry
    assert (geometry.spacing, geometry.unit) == (pytest.approx((1000, 500, 250)), "nm")
    assert geometry.origin == pytest.approx((2000, 3000, 4000))


def test_coarser_levels_lie_on_the_finest(tmp_path):
    shape = (2, 600, 1100)
    labels = np.ones(shape, np.uint8)
    geometry = Geometry.upright((3.0, 0.5, 0.25), "mm", ORIGIN)
    image = replace(read_volume_of(tmp_path), data=labels[None], geometry=geometry)
    write_labels(tmp_path / "labels.zarr", labels, image)
    write_uncertainty(tmp_path / "u.zarr", labels.astype(np.float32), image)
    for name, centred in (("labels", 0), ("u", 1)):
        datasets = zarr.open_group(tmp_path / f"{name}.zarr").attrs["ome"]["multiscales"][0]["datasets"]
        assert len(datasets) > 1
        for dataset in datasets:
            (size, place) = (list(each.values())[1] for each in dataset["coordinateTransformations"])
            factors = np.divide(size, geometry.spacing)
            assert np.allclose(place, ORIGIN + centred * (factors - 1) / 2 * geometry.spacing)


def ome_tiff(path, units=(MICRO, MICRO, MICRO), channels=1, **planes):
    count = SHAPE[2] * channels
    voxels = np.repeat(VOXELS.T[:, None], channels, axis=1)
    facts = {"axes": "ZCYX"} | {f"PhysicalSize{axis}": size for axis, size in zip("XYZ", SIZES, strict=True)}
    facts |= {f"PhysicalSize{axis}Unit": unit for axis, unit in zip("XYZ", units, strict=True)}
    facts["Plane"] = {f"Position{axis}": [place] * count for axis, place in planes.items() if axis[0] != "Z"}
    facts["Plane"] |= {
        f"Position{axis}": [place + 3 * (k // channels) if axis == "Z" else place for k in range(count)]
        for axis, place in planes.items()
        if axis[0] == "Z"
    }
    tifffile.imwrite(path, voxels, ome=True, metadata=facts, photometric="minisblack")


def planes_of(path):
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
    return tifffile.xml2dict(text)["OME"]["Image"]["Pixels"]["Plane"]


@in_one_case("channels", [1, 2])
def test_positions_of_an_ome_tiff_come_back(tmp_path, channels):
    ome_tiff(tmp_path / "a.ome.tif", channels=channels, X=1e5, XUnit=MICRO, Y=0.2, YUnit="mm", Z=100, ZUnit=MICRO)
    image = read_volume(tmp_path / "a.ome.tif")
    assert image.geometry.origin == pytest.approx(ORIGIN)
    for ending in PLACED:
        write_labels(tmp_path / f"labels{ending}", image.data[0], image)
        assert read_labels(tmp_path / f"labels{ending}").geometry.origin == pytest.approx(ORIGIN)
    assert [plane["PositionZ"] for plane in planes_of(tmp_path / "labels.ome.tif")] == pytest.approx([100, 103])
    write_probabilities(tmp_path / "p.ome.tif", np.zeros((2, *image.shape), np.float32), image)
    found = [(plane["TheC"], plane["TheZ"], plane["PositionZ"]) for plane in planes_of(tmp_path / "p.ome.tif")]
    assert sorted(found) == [(0, 0, 100), (0, 1, 103), (1, 0, 100), (1, 1, 103)]


def test_positions_that_are_no_lengths_come_back_as_they_are(tmp_path):
    ome_tiff(tmp_path / "a.ome.tif", X=12.5, Y=7, Z=3, ZUnit="reference frame")
    image = read_volume(tmp_path / "a.ome.tif")
    assert image.affine is None
    write_labels(tmp_path / "labels.ome.tif", image.data[0], image)
    assert planes_of(tmp_path / "labels.ome.tif") == planes_of(tmp_path / "a.ome.tif")


def test_the_origin_of_an_imagej_tiff_comes_back(tmp_path):
    facts = {"axes": "ZYX", "spacing": 3.0, "unit": "um", "xorigin": 40.0, "yorigin": -20.0, "zorigin": 2.0}
    tifffile.imwrite(tmp_path / "a.tif", VOXELS.T, imagej=True, resolution=(4, 2), metadata=facts)
    image = read_volume(tmp_path / "a.tif")
    assert image.spacing == (3, 0.5, 0.25)
    assert image.geometry.origin == (-6, 10, -10)  # the voxel that is at 0 is 40, -20, 2
    write_labels(tmp_path / "labels.tif", image.data[0], image)
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        back = file.imagej_metadata
    assert [back[name] for name in ("xorigin", "yorigin", "zorigin")] == [40, -20, 2]


def test_imagej_axes_may_have_units_of_their_own(tmp_path):
    facts = {"axes": "ZYX", "spacing": 3.0, "unit": "nm", "zunit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", VOXELS.T, imagej=True, resolution=(4, 2), metadata=facts)
    image = read_volume(tmp_path / "a.tif")
    assert (image.spacing, image.unit) == (pytest.approx((3000, 0.5, 0.25)), "nm")


def test_channels_lie_where_the_first_file_that_says_it_lies(tmp_path):
    np.save(tmp_path / "a.npy", VOXELS.T)
    geometry = Geometry.upright((3.0, 0.5, 0.25), "mm", (1, 2, 3))
    image = replace(read_volume(tmp_path / "a.npy", axes="zyx"), geometry=geometry)
    write_labels(tmp_path / "b.ome.tif", image.data[0], image)
    both = read_volume(f"{tmp_path}/a.npy|{tmp_path}/b.ome.tif", axes="zyx")
    assert (both.channels, both.spacing, both.geometry.origin) == (2, (3, 0.5, 0.25), (1, 2, 3))


@in_one_case("shear, is_upright", [(0.0, True), (2e-5, False)])
def test_a_shear_is_measured_by_the_shortest_edge(tmp_path, shear, is_upright):
    affine = np.diag([0.001, 0.001, 3, 1])
    affine[0, 1] = shear
    geometry = Geometry((3, 0.001, 0.001), "mm", affine)
    assert (geometry.origin is not None) == is_upright
    image = replace(read_volume_of(tmp_path), geometry=geometry)
    write_labels(tmp_path / "a.nii", image.data[0], image)
    assert (nibabel.load(tmp_path / "a.nii").header["qform_code"] > 0) == is_upright


# Geometry -------------------------------------------------------------------------------------------------------------


def test_a_geometry_follows_every_change_of_its_grid():
    geometry = Geometry((3.0, 0.8, 0.7), "mm", OBLIQUE, OTHER)
    shape = (6, 9, 12)  # z, y, x
    for order in itertools.permutations(range(3)):
        turned = geometry.ordered(order)
        assert turned.spacing == pytest.approx([geometry.spacing[axis] for axis in order])
        old = np.array([1, 2, 3])  # z, y, x
        new = old[list(order)]
        assert np.allclose(turned.affine @ (*new[::-1], 1), OBLIQUE @ (*old[::-1], 1))
    half = geometry.resized(shape, (3, 9, 24))
    assert half.spacing == pytest.approx((6.0, 0.8, 0.35))
    for corner, there in (((-0.5, -0.5, -0.5), (-0.5, -0.5, -0.5)), ((11.5, 8.5, 5.5), (23.5, 8.5, 2.5))):
        assert np.allclose(half.affine @ (*there, 1), geometry.affine @ (*corner, 1))
        assert np.allclose(half.other_affine @ (*there, 1), OTHER @ (*corner, 1))


def test_what_a_file_does_not_say_is_filled_in_and_nothing_else():
    filled = Geometry().completed((3, 2, 1), "mm")
    assert (filled.spacing, filled.unit) == ((3, 2, 1), "mm")
    known = Geometry((1.0, 1.0, 1.0), "micrometer")
    assert known.completed((3, 2, 1), "mm") is known


STRANGE = (9e18, 1e-300, float("nan"), float("inf"))


def stated(folder, ending, size):
    """Write an image whose header states a voxel size along z, or for .nrrd along x."""
    path, voxels = folder / f"a{ending}", np.zeros((6, 5, 8), np.uint8)
    if ending == ".zarr":
        group = zarr.open_group(path, mode="w", zarr_format=3)
        group.create_array("0", data=voxels)
        scale = [{"type": "scale", "scale": [size, 1, 1]}]
        axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
        image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    elif ending == ".nii":
        header = nibabel.Nifti1Header()
        header.set_data_shape(voxels.shape[::-1])
        header.set_data_dtype("u1")
        header["vox_offset"], header["magic"], header["pixdim"][1:4] = 352, b"n+1", (1, 1, max(size, 1e-38))
        path.write_bytes(bytes(header.binaryblock) + bytes(4) + voxels.tobytes())
    elif ending == ".h5":
        with h5py.File(path, "w") as file:
            file["a"] = voxels
            file["a"].attrs["element_size_um"] = (size, 1, 1)
    elif ending == ".ome.tif":
        tifffile.imwrite(path, voxels, ome=True, metadata={"axes": "ZYX", "PhysicalSizeZ": size})
    else:
        tifffile.imwrite(path, voxels, imagej=True, metadata={"axes": "ZYX", "spacing": size, "unit": "um"})
    return path


@in_one_case("ending, size", [(e, s) for e in (".zarr", ".nii", ".h5", ".tif", ".ome.tif") for s in STRANGE])
def test_a_voxel_size_that_no_image_has_is_refused_and_can_be_given(tmp_path, ending, size):
    path = stated(tmp_path, ending, size)
    with pytest.raises(DataProblem, match=rf"^a{ending} states voxels of \S+ x 1 x 1 \S+ \(z y x\), which no image"):
        read_volume(path)
    assert read_volume(path, spacing=(3, 2, 1), notices=(notices := [])).spacing == (3, 2, 1)
    assert "what it says of space was left out" in notices[0]


def test_a_position_that_is_no_number_and_a_unit_that_is_no_length_are_not_silent(tmp_path):
    affine = np.diag([1.0, 1, 1, 1])
    affine[0, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 5, 5), np.uint8), affine), tmp_path / "a.nii")
    with pytest.raises(DataProblem, match=r"a.nii states an affine whose numbers are no places \(1 0 0 nan 0 1"):
        read_volume(tmp_path / "a.nii")
    path = stated(tmp_path, ".zarr", 2)
    file = path / "zarr.json"
    file.write_text(file.read_text().replace('"micrometer"', '"1e999\\u001b[2J"'))
    volume = read_volume(path, notices=(notices := []))
    assert (volume.spacing, volume.unit) == ((2, 1, 1), "1e999[2J")
    assert notices == [
        "a.zarr states its voxel size in the unit '1e999[2J', which is not known as a length; it is compared by its "
        "name, and not converted."
    ]
