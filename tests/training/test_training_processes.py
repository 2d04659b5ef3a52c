"""Several processes: the same model as one makes, one of them writes, all begin, stop and fail together."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import OutOfMemory
from napari_unetvnet.events import EpochDone, Notice, RunFinished, StepDone
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.runs.folder import MODEL
from napari_unetvnet.settings import SegmentJob, TrainJob, TrainSettings, checked
from napari_unetvnet.training import step, validation
from napari_unetvnet.training.batch_norm import OF_EACH_PROCESS
from napari_unetvnet.training.processes import SINGLE, ProcessGroup, from_environment

ROOT = Path(__file__).parents[2]
TINY = {
    "network": "unet3d_ds",  # instance norm and deep supervision
    "option": {"width": 4, "depth": 2},
    "view": "2d",
    "patch": (1, 16, 16),
    "batch": 3,  # two patches for the one, one for the other
    "steps_per_epoch": 3,
    "steps": 6,
    "optimizer": "sgd",  # AdamW makes a step of a gradient that is nothing but rounding
    "loss": "dice_ce",  # over the batch
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An image of squares in three planes and its labels; of half of it nothing is known."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    labels = np.zeros((3, 48, 48), np.uint8)
    for z, y, x in rng.integers(0, (3, 40, 40), (20, 3)):
        labels[z, y : y + 8, x : x + 8] = 1
    np.save(folder / "image.npy", labels + rng.normal(0, 0.3, labels.shape))
    painted = labels + 1
    painted[:, :, ::2] *= rng.integers(0, 2, (3, 48, 24), dtype=np.uint8)
    np.save(folder / "labels.npy", painted)
    return folder


def run_folder(files, folder, **changes):
    folder.mkdir()
    values = TINY | {"image": str(files / "image.npy"), "label": str(files / "labels.npy")}
    values |= {"unlabelled": "ignore", "background": 1} | changes
    if "minutes" in changes:
        values.pop("steps")
    runs.create(folder, checked(TrainJob, values))
    return folder


def command(*words):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return [sys.executable, *torchrun, "-m", "napari_unetvnet", *map(str, words)]


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["napari_unetvnet.training.loop", "napari_unetvnet.training.plan", "napari_unetvnet.runs"])
"""Starts processes from one that has torch already, which each would take seconds to import."""


def rank(number, port, told, work, words):
    """Be one of two processes, as torchrun starts them, and write what is said to files."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    os.environ.update(meeting | {"RANK": str(number), "LOCAL_RANK": str(number)})
    torch.set_num_threads(1)
    for stream in (1, 2):
        os.dup2(os.open(f"{told}.{number}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
    raise SystemExit(work(words))


def both(told, work, *words):
    """Do some work in two processes that can meet; give their exit status and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [START.Process(target=rank, args=(number, port, told, work, list(words))) for number in (0, 1)]
    for each in started:
        each.start()
    for each in started:
        each.join(120)
        assert each.exitcode is not None
    stdout, stderr = ("".join(Path(f"{told}.{n}.{stream}").read_text() for n in (0, 1)) for stream in (1, 2))
    return SimpleNamespace(returncode=max(abs(each.exitcode) for each in started), stdout=stdout, stderr=stderr)


def done(folder, *options):
    """Run a run folder in two processes."""
    return both(folder.with_suffix(".said"), main, "run", str(folder), *options)


def events(folder):
    return runs.follow(folder)[0]


def wait_for_step(folder, child, step):
    begun = time.monotonic()
    while not any(isinstance(event, StepDone) and event.step >= step for event in events(folder)):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() - begun < 120
        time.sleep(0.1)


def assert_same_training(one, several):
    """The states agree to rounding: weights, running statistics, moments; and so do the best models."""
    for name in (MODEL, "last.safetensors"):
        a, b = load_file(one / name), load_file(several / name)
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def losses(folder):
    """Give the loss of each epoch; of the steps of a quick run only some are written down."""
    return [(event.step, event.loss) for event in events(folder) if isinstance(event, EpochDone)]


@given(count=st.integers(0, 50), size=st.integers(1, 9))
def test_shares_are_the_whole_and_differ_by_one_at_most(count, size):
    shares = [ProcessGroup(rank, size).share(count) for rank in range(size)]
    assert (shares[0].start, shares[-1].stop) == (0, count)
    assert all(a.stop == b.start for a, b in pairwise(shares))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1
    assert lengths == [len(part) for part in torch.arange(count).tensor_split(size)]


def test_a_process_alone_gets_back_what_it_gave():
    tensor = torch.ones(2, 3)
    assert SINGLE.broadcast(1.5) == 1.5
    SINGLE.broadcast_tensors([tensor])
    assert SINGLE.sum(array := np.ones(2)) is array
    assert SINGLE.gather(tensor, 2) is tensor
    assert SINGLE.label == ""
    assert SINGLE.lost_process(RuntimeError("gloo: connection closed")) is None
    with SINGLE.joined(checked(TrainSettings, {})):
        SINGLE.barrier()
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("told", "group"),
    [
        ({}, SINGLE),
        ({"WORLD_SIZE": "4"}, SINGLE),  # some other program's
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, ProcessGroup(5, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, SINGLE),
    ],
)
def test_the_environment_says_which_process_this_is(monkeypatch, told, group):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert from_environment() == group


def test_a_lost_process_is_told_from_other_faults():
    group = ProcessGroup(0, 2)
    assert "continue with --resume" in str(
        group.lost_process(RuntimeError("[../gloo/pair.cc] Connection closed by peer"))
    )
    assert group.lost_process(RuntimeError("shapes do not fit")) is None


def test_other_commands_are_refused_in_several_processes(monkeypatch, capsys):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert main(["models"]) == 2
    assert "[process 2 of 2] Only the run command supports several processes" in capsys.readouterr().err


def test_several_processes_do_not_make_a_step_smaller(monkeypatch):
    """The others would wait within the step."""

    def does_not_fit(_):
        raise OutOfMemory("2 block(s) do not fit; choose a smaller batch.")

    monkeypatch.setattr(step, "_gradients", does_not_fit)
    with pytest.raises(OutOfMemory, match="choose a smaller batch"):
        next(step.fitting_step(SimpleNamespace(group=ProcessGroup(1, 2))))  # without a fallback


def check_group(_):
    """Be one of two processes that agree on numbers, add up arrays and put tensors together."""
    torch.manual_seed(0)
    group = from_environment()
    with group.joined(TrainSettings(device="cpu")):
        assert group.size == 2
        assert group.broadcast(group.rank + 0.25) == 0.25
        np.testing.assert_array_equal(group.sum(np.array([[1.0, group.rank]])), [[2, 1]])

        whole = torch.randn(5, 2, 4, 4, dtype=torch.float64).requires_grad_()
        own = whole[group.share(5)]
        together = group.gather(own, 5)
        assert torch.equal(together, whole)
        together.square().sum().backward()  # reaches the own share only
        expected = torch.zeros_like(whole)
        expected[group.share(5)] = 2 * whole.detach()[group.share(5)]
        assert torch.equal(whole.grad, expected)
        assert group.gather(own.flatten(0, 1), 5).shape == (10, 4, 4)  # two rows a patch

        statistics = [torch.full((3, 2), float(group.rank)).t(), torch.tensor(group.rank)]
        group.broadcast_tensors(statistics)
        assert all((tensor == 0).all() for tensor in statistics)

        # What is scored is what rank 0 saves.
        network = torch.nn.BatchNorm2d(1)
        network.running_mean.fill_(group.rank)
        validation.dice_on = lambda regions, model, classes, group: (model.network.running_mean.item(), {})
        run = SimpleNamespace(model=SimpleNamespace(network=network), ema=None, scored=[])
        run.data, run.schedule = SimpleNamespace(classes=None), SimpleNamespace(step=1)
        best = validation._snapshot(run, group)
        assert (best.dice, best.weights["running_mean"].item()) == (0, 0)


@pytest.mark.slow
def test_two_processes_agree_add_up_and_put_together(tmp_path):
    told = both(tmp_path / "check", check_group)
    assert told.returncode == 0, told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"ema_decay": 0.9},
        {
            "batch": 5,
            "gradient_accumulation": 2,
            "loss": "generalised_dice + ce",
            "deep_supervision_weights": (1.0, 0.0),  # a head that no loss looks at
        },
    ],
    ids=["ema", "in parts with an idle head"],
)
def test_two_processes_make_the_model_of_one(files, tmp_path, changes):
    one, two = (run_folder(files, tmp_path / name, **changes) for name in ("one", "two"))
    list(runs.run(one))
    told = done(two)
    assert told.returncode == 0, told.stderr
    assert_same_training(one, two)
    first, *_, last = losses(one)
    assert first[1] != last[1]  # something was learnt
    assert dict(losses(two))[first[0]] == pytest.approx(first[1], rel=1e-5)
    # One process alone writes and speaks.
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    # All but how much memory is free at the moment, which the plan tells, and the folder of the run.
    said = [
        [
            re.sub(r"[0-9.]+ GiB are free", "", e.text.replace(str(each), ""))
            for e in events(each)
            if isinstance(e, Notice)
        ]
        for each in (one, two)
    ]
    assert said[0] == said[1] != []
    assert told.stdout.count("model: ") == told.stdout.count("steps: 6") == 1
    assert told.stderr.count("epoch 2: ") == 1


@pytest.mark.slow
def test_on_cpus_each_process_has_batch_statistics_of_its_own_and_says_so_once(files, tmp_path):
    folder = run_folder(files, tmp_path / "run", network="unet_padding", ema_decay=0.9)
    told = done(folder)
    assert told.returncode == 0, told.stderr
    said = [event.text for event in events(folder) if isinstance(event, Notice)]
    assert said.count(OF_EACH_PROCESS) == told.stderr.count(OF_EACH_PROCESS) == 1
    assert events(folder)[-1].state == "done"


@pytest.mark.slow
def test_a_stopped_training_goes_on_in_another_number_of_processes(files, tmp_path):
    two = run_folder(files, tmp_path / "two")
    runs.ask_to_stop(two)  # seen after the first step
    told = done(two)
    assert "Stopped. Progress is saved" in told.stderr
    assert (events(two)[-1].state, events(two)[-1].results["steps"]) == ("stopped", "1")
    again = tmp_path / "again"
    shutil.copytree(two, again)
    list(runs.run(two, resume=True))
    assert done(again, "--resume").returncode == 0
    assert events(two)[-1].results["steps"] == events(again)[-1].results["steps"] == "6"
    assert_same_training(two, again)


@pytest.mark.slow
def test_a_signal_ends_all_after_a_step(files, tmp_path):
    folder = run_folder(files, tmp_path / "run", steps=100_000)
    with subprocess.Popen(command("run", folder), env=environment(), stderr=subprocess.PIPE, text=True) as child:
        wait_for_step(folder, child, 2)
        child.send_signal(signal.SIGTERM)  # torchrun hands it on to both
        _, told = child.communicate()
    assert told.count("Stopped. Progress is saved") == 1
    assert events(folder)[-1].state == "stopped"
    assert (folder / "last.safetensors").exists()


@pytest.mark.slow
def test_a_time_budget_is_that_of_the_first_process_and_a_lost_process_ends_all(files, tmp_path):
    folder = run_folder(files, tmp_path / "timed", minutes=0.05)
    told = done(folder)
    assert told.returncode == 0, told.stderr
    assert (last := [e for e in events(folder) if isinstance(e, StepDone)][-1]).steps >= last.step > 3
    assert 2 < last.seconds < 30
    assert events(folder)[-1].state == "done"
    folder = run_folder(files, tmp_path / "lost", steps=100_000)
    with subprocess.Popen(command("run", folder), env=environment(), stderr=subprocess.PIPE, text=True) as child:
        wait_for_step(folder, child, 4)
        second(child.pid).kill()
        _, told = child.communicate()
    assert "[process 1 of 2] Another process of this training has ended" in told
    finished = events(folder)[-1]
    assert isinstance(finished, RunFinished)
    assert (finished.state, finished.fault) == ("failed", False)
    assert (folder / MODEL).exists()


def second(pid):
    """Give the process of rank 1 among those that torchrun started."""
    import psutil

    return next(child for child in psutil.Process(pid).children() if child.environ().get("RANK") == "1")


@pytest.mark.slow
def test_too_small_a_batch_is_refused_and_a_segmentation_is_done_by_the_first(files, tmp_path):
    folder = run_folder(files, tmp_path / "small", batch=1)
    told = done(folder)
    assert told.returncode != 0
    assert "Batch 1 is too small for 2 processes" in told.stderr
    assert events(folder)[-1].state == "failed"
    trained = run_folder(files, tmp_path / "trained")
    list(runs.run(trained))
    folder = tmp_path / "segment"
    folder.mkdir()
    values = {"image": str(files / "image.npy"), "model": str(trained / MODEL), "device": "cpu"}
    runs.create(folder, checked(SegmentJob, values | {"output": str(tmp_path / "labels.npy")}))
    told = done(folder)
    assert told.returncode == 0, told.stderr
    assert events(folder)[-1].state == "done"
    assert told.stdout.count("labels: ") == 1
    assert read_labels(tmp_path / "labels.npy").shape == (3, 48, 48)
