"""Where and in which number format to compute."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.errors import UserError
from napari_unetvnet.model import device as compute
from napari_unetvnet.model.device import bf16_pays, choose_device, faster_formats, keep_freed_memory
from napari_unetvnet.settings import ComputeSettings


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """Nothing is remembered of this machine."""
    path = tmp_path / "cache" / "bf16.json"
    monkeypatch.setattr(compute, "cache_folder", lambda: path.parent)
    bf16_pays.cache_clear()
    yield path
    bf16_pays.cache_clear()


@in_one_case("pays", [True, False])
@in_one_case("precision", ["auto", "fp32", "bf16"])
@in_one_case("device", ["auto", "cpu"])
def test_without_a_gpu_everything_runs_on_the_cpu(monkeypatch, device, precision, pays):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(compute, "bf16_pays", lambda: pays)
    chosen = choose_device(ComputeSettings(device=device, precision=precision))
    fast = "bf16" if pays else "fp32"
    assert chosen == (torch.device("cpu"), fast if precision == "auto" else precision)


def test_a_gpu_that_is_not_there_is_refused_with_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^Device cuda .*choose device auto or cpu\.$"):
        choose_device(ComputeSettings(device="cuda"))


@pytest.mark.parametrize(("capability", "precision"), [((8, 0), "bf16"), ((7, 5), "fp32")])
def test_a_gpu_is_taken_by_default_in_a_number_format_that_it_has_units_for(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # which older ones imitate
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(compute, "bf16_pays", lambda: precision == "fp32")
    assert choose_device(ComputeSettings()) == (torch.device("cuda"), precision)


@pytest.mark.parametrize("pays", [True, False])
def test_a_cpu_may_be_faster_in_bf16_and_never_in_fp16(monkeypatch, pays):
    monkeypatch.setattr(compute, "bf16_pays", lambda: pays)
    assert faster_formats(torch.device("cpu")) == (("bf16",) if pays else ())


@pytest.mark.parametrize(
    ("capability", "formats"),
    [((9, 0), ("bf16", "fp16")), ((8, 0), ("bf16", "fp16")), ((7, 5), ("fp16",)), ((6, 1), ())],
)
def test_a_gpu_is_faster_in_what_it_has_units_for(monkeypatch, capability, formats):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert faster_formats(torch.device("cuda")) == formats


@pytest.mark.parametrize(("gain", "pays"), [(0.01, False), (1.29, False), (1.31, True)])
def test_bf16_is_taken_where_it_is_clearly_faster(memory, monkeypatch, gain, pays):
    monkeypatch.setattr(compute, "_measured_gain", lambda: gain)
    assert bf16_pays() is pays
    assert list(json.loads(memory.read_text()).values()) == [pays]


def test_what_was_measured_once_stays_though_the_machine_is_busy(memory, monkeypatch):
    monkeypatch.setattr(compute, "_measured_gain", lambda: 2.0)
    assert bf16_pays()
    bf16_pays.cache_clear()
    monkeypatch.setattr(compute, "_measured_gain", lambda: 0.5)
    assert bf16_pays()


@pytest.mark.parametrize("junk", [b"", b"[]", b"{", b'{"a": "\xff"}'])
def test_a_damaged_memory_is_told_and_measured_anew(memory, monkeypatch, caplog, junk):
    memory.parent.mkdir()
    memory.write_bytes(junk)
    monkeypatch.setattr(compute, "_measured_gain", lambda: 2.0)
    assert bf16_pays()
    (record,) = caplog.records
    assert record.getMessage().startswith(str(memory))
    assert record.getMessage().endswith("its contents are determined again.")
    bf16_pays.cache_clear()
    monkeypatch.setattr(compute, "_measured_gain", lambda: 0.5)
    assert bf16_pays(), "it was measured twice"


def test_what_else_is_remembered_stays(memory):
    compute.remember(memory.name, "a", 1)
    compute.remember(memory.name, "b", [2])
    assert [compute.recall(memory.name, key) for key in "abc"] == [1, [2], None]


@pytest.mark.alone
def test_the_gain_is_a_ratio_of_times():
    assert 1e-4 < compute._measured_gain() < 1e3


PAGES = """
import resource, sys
from napari_unetvnet.model.device import keep_freed_memory
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(8):
        torch.ones(12_000_000)  # 48 MB
work()
before = faults(); work(); usual = faults() - before
with keep_freed_memory():
    work()
    before = faults(); work(); kept = faults() - before
sys.exit(0 if kept < usual / 4 else f"{kept} page faults instead of {usual}")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for the allocator of Linux")
@pytest.mark.alone
def test_freed_memory_is_used_again():
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_allocator_of_linux_nothing_is_done(monkeypatch):
    monkeypatch.setattr(compute.platform, "libc_ver", lambda: ("", ""))
    with keep_freed_memory():
        pass
