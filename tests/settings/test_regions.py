"""Regions: what their text means, and which value stands for each in a label image."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.settings.regions import PRESETS, LabelRegion, parse_regions, region_values

BRATS = PRESETS["brats"]


@in_one_case(
    "words", ["brats", "BraTS", "WT=1+2+4 TC=1+4 ET=4", "WT=1+2+4,TC=1+4, ET=4", ["WT=4+2+1", "TC=1+4", "ET=4"]]
)
def test_regions_are_read(words):
    assert parse_regions(words) == BRATS


def test_what_is_written_is_read_again():
    assert parse_regions(map(str, BRATS)) == BRATS


def test_nothing_is_no_region():
    assert parse_regions("") == ()


@in_one_case(
    "words, said",
    [
        ("WT", "'WT' should be name=value"),
        ("WT=", "'WT='"),
        ("WT=0+1", "'WT=0\\+1'"),
        ("WT=1 WT=2", "the same name"),
        ("A=1+2 B=2+1", "the same values"),
        ("1=2", "'1=2'"),
    ],
)
def test_what_is_no_region_is_refused_with_a_sentence(words, said):
    with pytest.raises(SettingsProblem, match=said):
        parse_regions(words)


def test_the_tumour_regions_are_written_with_their_own_values():
    assert region_values(BRATS) == (2, 1, 4)


def test_a_region_without_a_value_of_its_own_has_its_least():
    assert region_values(parse_regions("all=1+2 a=1 b=2")) == (1, 1, 2)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True))
def test_a_chain_of_regions_says_every_voxel(chain):
    regions = tuple(LabelRegion(name=f"r{i}", values=tuple(chain[i:])) for i in range(len(chain)))
    labels = np.array([0, *chain])
    written = region_values(regions)
    again = np.zeros_like(labels)
    for region, value in zip(regions, written, strict=True):
        again[np.isin(labels, region.values)] = value
    assert (again == labels).all()
