"""A terminal that is closed, and signals, end a command as Ctrl-C does."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import numpy as np
import pytest

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.cli.signals import asked_to_stop
from napari_unetvnet.events import StepDone
from napari_unetvnet.files import replacing

pytestmark = pytest.mark.usefixtures("hang_up")


@pytest.mark.slow
def test_a_run_stops_when_its_terminal_is_closed_and_resumes(tmp_path):
    """A window that is closed leaves nowhere to write to; its signal comes from the system and again from the shell."""
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((40, 40)).astype(np.float32))
    np.save(tmp_path / "labels.npy", (np.load(tmp_path / "image.npy") > 0.7).astype(np.uint8))
    job = {"image": str(tmp_path / "image.npy"), "label": str(tmp_path / "labels.npy"), "steps": 100_000}
    job |= {"network": "unet_padding", "option": {"width": 2, "depth": 2}, "patch": (1, 16, 16), "batch": 2}
    job |= {
        "device": "cpu",
        "unlabelled": "background",
        "steps_per_epoch": 5,
        "start_from": None,
        "label_checks": "warn",
    }
    folder = tmp_path / "run"
    folder.mkdir()
    runs.create(folder, runs.folder.checked(runs.folder.TrainJob, job))
    outside, inside = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "napari_unetvnet", "run", str(folder)],
        stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(inside)
    os.set_blocking(outside, False)
    end = time.monotonic() + 60
    try:
        while not any(isinstance(event, StepDone) for event in runs.follow(folder)[0]):
            assert child.poll() is None
            assert time.monotonic() < end
            try:
                os.read(outside, 65536)
            except BlockingIOError:
                time.sleep(0.05)
        os.close(outside)
        child.send_signal(signal.SIGHUP)
        assert child.wait(30) == 130
    finally:
        child.kill()
        child.wait()
    assert runs.follow(folder)[0][-1].state == "stopped"
    assert (folder / "model.safetensors").exists()


def test_what_a_command_was_writing_is_removed_when_it_is_ended(tmp_path, monkeypatch):
    def clean(_):
        with replacing(tmp_path / "out.tif") as part:
            part.write_bytes(b"half")
            os.kill(os.getpid(), number)
            time.sleep(5)

    monkeypatch.setattr("napari_unetvnet.cli.main.clean", clean)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        assert main(["clean", "in.tif"]) == 130
        assert not list(tmp_path.iterdir())
        assert signal.getsignal(number) == before[number]


def test_what_is_ignored_stays_ignored():
    """As by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asked_to_stop(pytest.fail):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_what_a_person_sends_twice_ends_a_run_at_once():
    asked = []
    with asked_to_stop(lambda: asked.append(1)):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert len(asked) == 4
