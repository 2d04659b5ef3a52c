"""Images and labels are paired by what their names say, and what has no partner is refused and named."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.io import PairFiles, find_pairs, read_pairs_csv, resolve
from napari_unetvnet.images.pair_table import write_pairs_csv
from napari_unetvnet.images.pairs import describe_pairs


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    "form", ["{}.tif", "{}_labels.png", "{}_seg.tif", "{}-mask.npy", "{}.GT.nii.gz", "mask_{}.tif"]
)
def test_folders_pair_by_name(tmp_path, form):
    images = touch(tmp_path / "i", "a.png", "b_1.png", "c.nii.gz", ".hidden.png", "notes.txt")
    labels = touch(tmp_path / "l", *(form.format(name) for name in ("a", "b_1", "c")))
    assert find_pairs([str(tmp_path / "i")], [str(tmp_path / "l")]) == list(zip(images[:3], labels, strict=True))


def test_files_pair_by_name_whatever_their_order(tmp_path):
    images, labels = touch(tmp_path, "x.tif", "y.tif", "x_raw.tif"), touch(tmp_path, "y_gt.tif", "x.npy", "x_raw.npy")
    assert find_pairs(images, labels) == [(images[0], labels[1]), (images[1], labels[0]), (images[2], labels[2])]


def test_only_one_image_needs_no_common_name(tmp_path):
    images, labels = touch(tmp_path, "1.tif", "2.tif"), touch(tmp_path, "b.tif", "a.tif")
    channels = "|".join(images)
    assert find_pairs([channels], labels[:1]) == [(channels, labels[0])]
    with pytest.raises(
        DataProblem, match=r"Images without masks \(2\): 1\.tif, 2\.tif\.\nMasks without images \(2\): b\.tif"
    ):
        find_pairs(images, labels, ("images", "masks"))


def test_sets_pair_as_they_are_distributed(tmp_path):
    for part, numbers in (("training", (21, 22, 23)), ("test", (1, 2, 3))):
        images = touch(tmp_path / part, *(f"{n:02}_{part}.tif" for n in numbers))
        labels = touch(tmp_path / f"{part}-manual", *(f"{n:02}_manual1.gif" for n in numbers))
        masks = touch(tmp_path / f"{part}-mask", *(f"{n:02}_{part}_mask.gif" for n in numbers))
        pairs = find_pairs([str(tmp_path / part)], [str(tmp_path / f"{part}-manual")])
        assert pairs == list(zip(images, labels, strict=True))
        assert find_pairs(images, masks[::-1], ("images", "masks")) == list(zip(images, masks, strict=True))
    images = touch(tmp_path, *(f"Image_{n}.jpg" for n in ("01L", "01R", "02L")))
    for observer in ("1stHO", "2ndHO"):
        labels = touch(tmp_path, *(f"Image_{n}_{observer}.png" for n in ("01L", "01R", "02L")))
        assert find_pairs(images, labels) == list(zip(images, labels, strict=True))
    both = touch(tmp_path, "01_test.tif", "01_training.tif"), touch(tmp_path, "01_manual1.gif", "02_manual1.gif")
    with pytest.raises(
        DataProblem, match=r"02_manual1\.gif\.\nNot clear: .*01_manual1\.gif fits .*01_test\.tif and .*01_training\.tif"
    ):
        find_pairs(*both)


def test_pairs_that_cannot_be(tmp_path):
    images, labels = touch(tmp_path / "i", "a.tif", "b.tif"), touch(tmp_path / "l", "a.tif", "z.tif")
    with pytest.raises(
        DataProblem, match=r"Images without labels \(1\): b\.tif\.\nLabels without images \(1\): z\.tif\."
    ):
        find_pairs([str(tmp_path / "i")], [str(tmp_path / "l")])
    with pytest.raises(DataProblem, match=r"images \(2\) and labels \(1\) cannot"):
        find_pairs(images, labels[:1])
    with pytest.raises(FileProblem, match="There is no file"):
        find_pairs(["none.tif"], labels[:1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileProblem, match="holds no image"):
        find_pairs([str(tmp_path / "empty")], labels)


def test_resolve_makes_every_part_absolute(tmp_path):
    assert resolve(f"a.nii | {tmp_path}/b.nii", tmp_path / "f") == f"{tmp_path}/f/a.nii|{tmp_path}/b.nii"


@pytest.mark.parametrize("mark", [",", ";"])
def test_table_of_pairs(tmp_path, mark):
    rows = [["Image", "label", "split"], ["a.nii|b.nii", "l.nii", "Train"], [], ["c.nii", "m.nii", ""]]
    (tmp_path / "p.csv").write_text("\n".join(mark.join(row) for row in rows), encoding="utf-8-sig")
    assert read_pairs_csv(tmp_path / "p.csv") == [
        PairFiles(f"{tmp_path}/a.nii|{tmp_path}/b.nii", f"{tmp_path}/l.nii", "train"),
        PairFiles(f"{tmp_path}/c.nii", f"{tmp_path}/m.nii", ""),
    ]


@pytest.mark.parametrize(
    ("text", "problem", "sentence"),
    [
        ("", FileProblem, "no column image and no column label"),
        ("image,mask\na,b\n", FileProblem, "no column label; its first row"),
        ("image,label\n", FileProblem, "lists no pairs"),
        ("image,label,split\na,b,train\nc,d,test\n", DataProblem, "row 3: split is 'test'; write train or val"),
        ("image,label\na,b\n\nc\n", DataProblem, "row 4: image or label is empty"),
        ("image,label\n\xff,b\n", FileProblem, "save it as text in UTF-8"),
    ],
)
def test_bad_tables_of_pairs(tmp_path, text, problem, sentence):
    (tmp_path / "p.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(problem, match=sentence):
        read_pairs_csv(tmp_path / "p.csv")
    with pytest.raises(FileProblem, match="There is no file"):
        read_pairs_csv(tmp_path / "q.csv")


LAYOUTS = [
    ("a b c", "a_seg b_seg c_seg"),
    ("img1 img2 img10", "mask1 mask2 mask10"),
    ("img1 img2 img10", "mask01 mask02 mask10"),
    ("t1_im t2_im", "t1_mask t2_mask"),
    ("a b", "a_cp_masks b_cp_masks"),
    ("Scan1 Scan2", "scan1 scan2"),
    ("volume-0 volume-1", "segmentation-0 segmentation-1"),
    ("BraTS-1-t1n BraTS-2-t1n", "BraTS-1-seg BraTS-2-seg"),
    ("p1_flair p2_flair", "p1_lesions p2_lesions"),
    ("sub-1_T1w sub-2_T1w", "sub-1_T1w_label-lesion sub-2_T1w_lesion-manual"),
    ("sub-1_T1w sub-2_T1w", "sub-1_T1w_dseg sub-2_dseg"),
    ("x x_raw", "x_gt x_raw_gt"),
    ("case_1_0000 case_2_0000", "case_1 case_2"),
    ("slice_0000 slice_0001", "slice_0000_mask slice_0001_mask"),
    ("01_image 02_image", "01_ground_truth 02_gold_standard"),
    ("Größe 1,Größe 2", "Größe 1_Mask,größe 2_mask"),
    ("day1/a day2/a", "l/day1/a_seg l/day2/a_seg"),
    ("s1/imaging s2/imaging", "s1/segmentation s2/segmentation"),
]
"""Names of images and of labels, in the right order."""


def split(names):
    return [f"{name}.tif" for name in (names.split(",") if "," in names else names.split())]


@pytest.mark.parametrize(("image_names", "label_names"), LAYOUTS)
def test_names_pair_in_whatever_order_they_are_given(tmp_path, image_names, label_names):
    images, labels = deep(tmp_path / "i", *split(image_names)), deep(tmp_path / "l", *split(label_names))
    expected = list(zip(images, labels, strict=True))
    assert find_pairs(images, labels[::-1]) == expected
    if "/" not in image_names:
        assert sorted(find_pairs([str(tmp_path / "i")], [str(tmp_path / "l")])) == sorted(expected)


def deep(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    ("image_names", "label_names", "sentence"),
    [
        (
            "a b c",
            "b_seg c_seg d_seg",
            r"Images without labels \(1\): a\.tif\.\nLabels without images \(1\): d_seg\.tif\.",
        ),
        ("a b", "a_seg", r"Images without labels \(1\): b\.tif\."),
        ("a", "a_seg b_seg", r"Labels without images \(1\): b_seg\.tif\."),
        ("a a_raw b", "a_1 a_2 b", r"Images without labels \(2\): a\.tif, a_raw\.tif"),
        ("a b", "a_mask a_seg", r"Not clear: i/a\.tif fits l/a_(mask|seg)\.tif and l/a_(seg|mask)\.tif\."),
        ("Scan1 img_1", "1_mask 2_mask", r"Not clear: l/1_mask\.tif fits i/(Scan1|img_1)\.tif and i/"),
        ("s_1 s_2", "s_1 s_12", r"Images without labels \(1\): s_2\.tif\.\nLabels without images \(1\): s_12\.tif"),
        ("left right", "left_up left_down", "Not clear: i/left.tif fits l/left_(up|down).tif and"),
    ],
)
def test_half_matches_and_unclear_ones_are_refused_and_named(tmp_path, image_names, label_names, sentence):
    images, labels = deep(tmp_path / "i", *split(image_names)), deep(tmp_path / "l", *split(label_names))
    for given in ((images, labels), ([str(tmp_path / "i")], [str(tmp_path / "l")])):
        with pytest.raises(DataProblem, match=sentence) as refused:
            find_pairs(*given)
        assert "--in-order" in refused.value.lines[-1]


def test_channel_files_of_an_image_are_joined(tmp_path):
    for channels in (("0000", "0001"), ("t1", "flair")):
        names = [f"c_{n}_{channel}.nii.gz" for n in (1, 2) for channel in sorted(channels)]
        images, labels = deep(tmp_path / "i", *names), deep(tmp_path / "l", "c_1.nii.gz", "c_2.nii.gz")
        expected = [("|".join(images[:2]), labels[0]), ("|".join(images[2:]), labels[1])]
        assert find_pairs(images, labels[::-1]) == expected
        with pytest.raises(DataProblem, match=f"c_2 has no {sorted(channels)[1]}; give the same channels"):
            find_pairs(images[:3], labels)


def test_in_order_only_where_it_is_said(tmp_path):
    images, labels = (
        deep(tmp_path / "i", "x1.tif", "x10.tif", "x9.tif"),
        deep(tmp_path / "l", "u.tif", "v.tif", "w.tif"),
    )
    with pytest.raises(DataProblem, match="cannot be paired by name"):
        find_pairs(images, labels)
    assert find_pairs(images, labels, in_order=True) == list(zip(images, labels, strict=True))
    of_folders = find_pairs([str(tmp_path / "i")], [str(tmp_path / "l")], in_order=True)
    assert of_folders == [(images[0], labels[0]), (images[2], labels[1]), (images[1], labels[2])]
    with pytest.raises(DataProblem, match="3 images but 2 labels"):
        find_pairs(images, labels[:2], in_order=True)


def test_the_pairs_are_told_long_lists_shortened_and_read_back_whole(tmp_path):
    pairs = [PairFiles(f"{tmp_path}/{n}_0.tif|{tmp_path}/{n}_1.tif", f"{tmp_path}/{n}_seg.tif") for n in range(30)]
    lines = describe_pairs(pairs, 4).splitlines()
    assert lines[0] == "30 pairs (image <- labels):"
    assert lines[1] == "  0_0.tif + 0_1.tif <- 0_seg.tif"
    assert lines[3] == "  ... 26 more ..."
    assert lines[-1] == "  29_0.tif + 29_1.tif <- 29_seg.tif"
    write_pairs_csv(tmp_path / "pairs.csv", pairs)
    assert read_pairs_csv(tmp_path / "pairs.csv") == pairs
    twins = [PairFiles(f"{tmp_path}/{d}/a.tif", f"{tmp_path}/{d}/a_seg.tif", mask="/m.tif") for d in ("d1", "d2")]
    assert describe_pairs(twins).splitlines()[2] == "  d2/a.tif <- d2/a_seg.tif, mask /m.tif"


def test_labels_of_another_modality_or_time_point_are_no_labels_of_an_image(tmp_path):
    def pair(images, labels):
        return find_pairs(touch(tmp_path, *images), touch(tmp_path, *labels))

    with pytest.raises(DataProblem, match="Images without labels"):
        pair(["s1_t1.tif", "s2_t1.tif"], ["s1_t2_seg.tif", "s2_t2_seg.tif"])
    for labels in (["s1_seg.tif", "s2_seg.tif"], ["train_s1_t1_seg.tif", "train_s2_t1_seg.tif"]):
        found = pair(["s1_t1.tif", "s2_t1.tif"], labels)
        assert [Path(label).name for _, label in found] == labels
    assert len(pair(["s1.tif", "s2.tif"], ["s1_flair_seg.tif", "s2_flair_seg.tif"])) == 2


def test_composed_and_decomposed_letters_are_the_same(tmp_path):
    names = [unicodedata.normalize(form, "zürich") for form in ("NFC", "NFD")]
    found = find_pairs(touch(tmp_path, f"{names[0]}.tif", "b.tif"), touch(tmp_path, f"{names[1]}_seg.tif", "b_seg.tif"))
    assert [unicodedata.normalize("NFC", Path(label).name) for _, label in found] == ["zürich_seg.tif", "b_seg.tif"]


def test_check_tells_the_pairs(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(16, 16)))
        np.save(tmp_path / f"{name}_seg.npy", rng.integers(0, 2, (16, 16)).astype("u1"))
    labels, images = ([f"{tmp_path}/{name}.npy" for name in names] for names in (("b_seg", "a_seg"), "ab"))
    given = ["--label", *labels, "--image", *images]
    main(["check", *given])
    assert "2 pairs (image <- labels):\n  a.npy <- a_seg.npy\n  b.npy <- b_seg.npy\n" in capsys.readouterr().out
    main(["check", *given, "--in-order"])
    said = capsys.readouterr().out
    assert "  a.npy <- b_seg.npy" in said
    assert "in order, not by name" in said
    main(["check", *given[:2], *given[3:5]])
    assert "Pair (image <- labels): a.npy <- b_seg.npy;" in (said := capsys.readouterr().out)
    assert "the names differ" in said
