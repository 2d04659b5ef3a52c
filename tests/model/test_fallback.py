"""Where memory does not suffice, the next cheaper way is taken, told and remembered."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_unetvnet.errors import FileProblem, OutOfMemory
from napari_unetvnet.model.fallback import Attempt, MemoryFallback, Options


@dataclass(frozen=True)
class Parts(Options):
    count: int = 1
    size: tuple[int, ...] | None = None


def more_parts(options):
    return (replace(options, count=2 * options.count), "there are more parts") if options.count < 4 else None


def smaller(options):
    return (replace(options, size=(1, 2)), "they are smaller") if options.size is None else None


def no_gpu(options):
    return None if options.cpu else (replace(options, cpu=True), "it continues on the CPU")


def made(file=None, kind="kind", applied=None, options=None):
    model = SimpleNamespace(device=torch.device("cpu"), precision="bf16")
    model.move_to = lambda device, precision: setattr(model, "precision", precision)
    steps, applied = (more_parts, smaller, no_gpu), [] if applied is None else applied
    return model, MemoryFallback(model, options or Parts(), steps, applied.append, kind, lambda: "one part", file)


def test_steps_are_taken_in_their_order_and_told_until_none_has_anything_to_save():
    model, fallback = made(applied=(applied := []))
    told = [fallback.next("A part", "from now on ").text for _ in range(4)]
    start = "A part did not fit into the memory of the device; from now on "
    assert told[0] == f"{start}there are more parts."
    assert told[2:] == [f"{start}they are smaller.", f"{start}it continues on the CPU."]
    assert model.precision == "fp32"
    assert applied[-1] == fallback.options == Parts(True, 4, (1, 2))
    with pytest.raises(OutOfMemory, match=r"^Not even one part fits into the memory of cpu; close other programs, or "):
        fallback.next("A part")


def test_what_worked_is_remembered_by_kind_and_begun_with_only_then():
    _, first = made()
    first.worked()  # at once
    assert made()[1].remembered() is None
    first.next("A part")
    assert made()[1].remembered() is None
    first.worked()
    assert made()[1].remembered() == Parts(count=2)
    assert made(kind="other")[1].remembered() is None


def test_that_the_gpu_was_given_up_is_not_remembered():
    _, fallback = made(options=Parts(False, 4, (1, 2)))
    fallback.next("A part")
    fallback.worked()
    assert fallback.options.cpu
    assert made()[1].remembered() is None


def test_the_options_of_a_run_are_read_back_as_they_were(tmp_path):
    file = tmp_path / "fallback.json"
    _, fallback = made(file)
    assert fallback.saved() is None
    for _ in range(3):
        fallback.next("A part")
    assert made(file)[1].saved() == fallback.options == Parts(False, 4, (1, 2))
    fallback.forget()
    assert fallback.saved() is None


@pytest.mark.parametrize("text", ["{", "[1]", '{"count": 2}'])
def test_a_damaged_file_is_named_with_a_way_out(tmp_path, text):
    (tmp_path / "fallback.json").write_text(text)
    with pytest.raises(FileProblem, match=r"fallback\.json .*; remove it to continue as the settings say, or start"):
        made(tmp_path / "fallback.json")[1].saved()


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemory("no"), RuntimeError("CUDA error: out of memory")])
def test_only_lack_of_memory_is_caught(error):
    with Attempt() as attempt:
        raise error
    assert attempt.failed
    with Attempt() as attempt:
        pass
    assert not attempt.failed
    with pytest.raises(RuntimeError, match="multiplied"), Attempt():
        raise RuntimeError("shapes cannot be multiplied")


def test_what_did_not_fit_is_free_before_the_next_attempt():
    def computes():
        array = np.zeros(9)
        held.append(weakref.ref(array))
        raise MemoryError

    held = []
    with Attempt() as attempt:
        computes()
    assert attempt.failed
    assert held[0]() is None
