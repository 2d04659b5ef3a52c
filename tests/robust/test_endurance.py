"""A few of the kills, runs and voxels of ``make soak``."""

from __future__ import annotations

import sys

import pytest
from endurance import MAKE, Kills, check_flat, large_volume, runs_in_a_row

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", MAKE)
def test_killed_work_is_resumed_to_the_same_bytes(files, tmp_path, kind):
    kills = Kills(kind, files, tmp_path)
    for seed in range(3 if kind == "train" else 1):
        kills.kill(seed)


def test_runs_in_a_row_leave_memory_handles_and_threads_as_they_were(files, tmp_path):
    check_flat(runs_in_a_row(files, tmp_path, 20))


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit the address space")
def test_a_volume_larger_than_the_memory_that_is_left(files, tmp_path):
    """The same limit as for 4 GiB of voxels; most of it is what Python and the libraries map."""
    large_volume(files, tmp_path, 64, 2 << 30)
