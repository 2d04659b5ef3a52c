"""Kills at any moment, many runs in one process, and a volume that is larger than the memory."""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from work import content, follow, in_child, segmentation, training

from napari_unetvnet.runs.folder import EVENTS

MAKE = {
    "train": (training, "m.safetensors", {"steps": 16, "steps_per_epoch": 4}),
    "tif": (segmentation, "o.tif", {"batch": 1}),
    "npy": (segmentation, "o.npy", {"batch": 1}),
    "nii.gz": (segmentation, "o.nii.gz", {"batch": 1}),
    "zarr": (segmentation, "o.zarr", {"batch": 1}),
}
"""Of each kind of work that is killed: what makes its run folder, its result and its options."""


def _begin(kind, files, folder):
    make, name, changes = MAKE[kind]
    folder.mkdir(parents=True)
    return make(files, folder / "run", output=str(folder / name), **changes), folder / name


class Kills:
    """Kills work of a kind at random moments and resumes it."""

    def __init__(self, kind, files, folder):
        self.kind, self.files, self.folder = kind, files, folder
        run, output = _begin(kind, files, folder / "whole")
        begin = time.monotonic()
        assert in_child(lambda: follow(run).state) == (0, "done")
        self.seconds, self.reference = time.monotonic() - begin, content(output)

    def kill(self, seed):
        """Kill a run, resume it, and give whether it was killed before its end."""
        run, output = _begin(self.kind, self.files, self.folder / str(seed))
        child = os.fork()
        if not child:  # pragma: no cover
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                follow(run)
            finally:
                os._exit(0)
        time.sleep(random.Random(f"{self.kind} {seed}").random() * self.seconds)  # noqa: S311
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in {0, -signal.SIGKILL}
        assert content(output) in (None, self.reference), f"{self.kind} {seed}: a part of a result"
        ended = in_child(lambda: follow(run, resume=(run / EVENTS).exists()).state)
        assert ended == (0, "done"), f"{self.kind} {seed}: {ended}"
        assert content(output) == self.reference, f"{self.kind} {seed}: other bytes"
        names = {path.name for path in output.parent.iterdir()} - {"run", output.name}
        assert not names, f"{self.kind} {seed}: left {names}"
        return status != 0


def _facts():
    gc.collect()  # files that are mapped to memory are closed with what holds them
    process = psutil.Process()
    return process.memory_info().rss, process.num_fds() if hasattr(process, "num_fds") else 0, process.num_threads()


def runs_in_a_row(files, folder, count):
    """Segment again and again in one process; give memory, handles and threads after a tenth and at the end."""

    def work():
        facts = []
        for number in range(count):
            run = segmentation(files, folder / str(number), output=str(folder / f"{number}.tif"))
            assert follow(run).state == "done"
            if number == count // 10 or number == count - 1:
                facts.append(_facts())
        return facts

    status, facts = in_child(work)
    assert status == 0, facts
    return facts


def check_flat(facts):
    """Memory, handles and threads of many runs do not grow."""
    (memory, handles, threads), (memory_at_end, handles_at_end, threads_at_end) = facts
    assert memory_at_end - memory < 24 << 20, facts
    assert handles_at_end <= handles, facts
    assert threads_at_end <= threads, facts


def large_volume(files, folder, planes, limit_bytes):
    """Segment a zarr volume into zarr in a process of limited memory; 1 MiB a plane, nearly all fill values.

    Returns
    -------
    seconds : float
    peak : int
        Resident bytes.
    """
    import zarr

    path = folder / "large.zarr"
    volume = zarr.create_array(
        str(path), shape=(planes, 1024, 1024), chunks=(16, 512, 512), dtype="uint8", fill_value=3,
        dimension_names=("z", "y", "x"),
    )  # fmt: skip
    volume[:4] = np.random.default_rng(0).integers(0, 9, (4, 1024, 1024), np.uint8)
    words = [path, "--model", files / "model.safetensors", "--output", folder / "labels.zarr", "--run", folder / "runs"]
    words += ["--device", "cpu", "--precision", "fp32", "--tile", 1, 512, 512, "--skip-constant"]
    begin = time.monotonic()
    with (folder / "log.txt").open("w+") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "napari_unetvnet", "segment", *map(str, words)], stdout=log, stderr=log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes)),
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, (folder / "log.txt").read_text()[-2000:]
    labels = zarr.open_group(str(folder / "labels.zarr"), mode="r")["0"]
    assert labels.shape == (planes, 1024, 1024)
    assert Path(folder / "labels.zarr" / "zarr.json").exists()
    return time.monotonic() - begin, usage.ru_maxrss * 1024
