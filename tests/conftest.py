"""What several tests need: runs that stay out of the user's folder, the real image, a painted half of it."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.images.volume import Volume

# The same examples in every run: a check that passed at a landing must not fail at the next one by chance.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")

LONGEST_RUN_SECONDS = 45 * 60
SAMPLES = Path(__file__).parents[1] / "napari_unetvnet" / "samples"


def pytest_configure(config):
    """End a run, or a worker of it, that hangs where the limit of a test does not reach, and tell where it hung."""
    if not config.option.usepdb:
        faulthandler.dump_traceback_later(LONGEST_RUN_SECONDS, exit=True, file=os.dup(2))


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """Whether this machine is faster in bf16 is measured once, also for child processes."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def runs_folder(tmp_path, monkeypatch, cache_folder):
    folder = tmp_path / "runs"
    monkeypatch.setenv("NAPARI_UNETVNET_CACHE", str(cache_folder))
    (cache_folder / "fallback.json").unlink(missing_ok=True)
    monkeypatch.setenv("NAPARI_UNETVNET_RUNS", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for child processes, as `one_thread` for this one
    return folder


@pytest.fixture
def hang_up():
    """A closed terminal is noticed, here and in children, even where the tests run under nohup, which ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks, to which a second thread is a burden; for each test, because drawing labels sets threads, too."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def nuclei():
    """The real image, (1, 1, 512, 512) uint16."""
    return read_volume(SAMPLES / "nuclei.tif")


@pytest.fixture(scope="session")
def nuclei_objects():
    """Ids of its nuclei, (512, 512)."""
    return np.asarray(read_labels(SAMPLES / "nuclei_objects.tif").data[0, 0])


@pytest.fixture(scope="session")
def painted_half(nuclei_objects):
    """Left half painted (1 background, 2 nucleus), right half unpainted (0), as a Volume."""
    painted = np.where(nuclei_objects > 0, 2, 1).astype(np.uint8)
    painted[:, 256:] = 0
    return Volume(painted[None, None], name="painted")
