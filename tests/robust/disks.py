"""Disks that are full: a small file system where mounting is allowed, else a limit on the size of a file."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder, kibibytes):
    """Mount a file system of a size at a folder; the test is skipped where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not is_root or mount("-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", folder):
        pytest.skip("mounting a small disk needs root and the permission to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def grow(folder, kibibytes):
    """Make a small disk larger, as someone does who removes other files."""
    assert mount("-o", f"remount,size={kibibytes}k", folder) == 0


def mount(*options):
    return subprocess.run(["mount", *map(str, options)], capture_output=True).returncode  # noqa: S607
