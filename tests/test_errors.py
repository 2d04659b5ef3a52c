"""Errors say what to do."""

from __future__ import annotations

from napari_unetvnet.errors import near_names


def test_near_names_lists_all_where_none_is_near():
    assert near_names("zzz", {"dice": 1, "ce": 2}) == "; there are dice, ce."
    assert near_names("dise", {"dice": 1, "ce": 2}) == "; did you mean dice?"
