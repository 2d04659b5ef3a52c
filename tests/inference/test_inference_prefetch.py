"""The next slab is read while the network works: one ahead, in order, with its errors, and no thread that stays."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from test_inference_segment import RAW, pointwise_model

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import scores, steps
from napari_unetvnet.inference.prefetch import prefetch
from napari_unetvnet.settings import SegmentSettings


def threads():
    return [each for each in threading.enumerate() if each.name.startswith("prefetch")]


class Made:
    """Remembers what was made."""

    def __init__(self, bad=()):
        self.numbers, self.bad = [], bad

    def __call__(self, number):
        self.numbers.append(number)
        if number in self.bad:
            raise ValueError(number)
        return number * 10


def settled(made, count):
    """Wait until so many things were made, and a moment longer for one too many."""
    until = time.monotonic() + 10
    while len(made.numbers) < count and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.02)
    return made.numbers


def test_things_come_in_order():
    assert list(prefetch(Made(), [3, 1, 2])) == [30, 10, 20]
    assert list(prefetch(Made(), [])) == []
    assert list(prefetch(Made(), [5])) == [50]


def test_one_thing_is_made_ahead_and_no_more():
    made = Made()
    coming = prefetch(made, range(5))
    for number in range(4):
        assert next(coming) == number * 10
        assert settled(made, number + 2) == list(range(number + 2))
    coming.close()


def test_what_goes_wrong_is_raised_in_its_turn_and_the_thread_ends():
    coming = prefetch(Made(bad=[1]), range(5))
    assert next(coming) == 0
    with pytest.raises(ValueError, match="1"):
        next(coming)
    assert not threads()


def test_closing_ends_the_thread():
    made = Made()
    coming = prefetch(made, range(100))
    next(coming)
    coming.close()
    assert not threads()
    assert len(made.numbers) <= 2


def test_a_single_slab_starts_no_thread():
    coming = prefetch(lambda _: threading.current_thread(), [0])
    assert next(coming) is threading.main_thread()


def test_stopping_a_segmentation_early_leaves_no_thread():
    work = steps(pointwise_model("2d"), Volume(np.zeros((1, 50, 8, 8), np.float32)), SegmentSettings())
    next(work)
    assert threads()
    work.close()
    assert not threads()


def test_finished_slabs_come_before_the_error_of_a_later_one():
    data = np.zeros((1, 5, 8, 8), np.float32)
    data[0, 3] = np.nan
    starts = []
    with pytest.raises(DataProblem, match="NaN"):
        for start, _ in scores(pointwise_model("2d"), Volume(data), SegmentSettings(), RAW):
            starts.append(start)
    assert starts == [0, 1, 2]
    assert not threads()


def test_a_network_that_fails_leaves_no_thread():
    model = pointwise_model("2d")

    def fail(*_):
        raise RuntimeError("broken")

    model.network.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken") as caught:
        list(scores(model, Volume(np.zeros((1, 5, 8, 8), np.float32)), SegmentSettings(), RAW))
    assert not threads()
    assert caught.value.__traceback__ is not None  # which holds everything that was there when it broke


def test_the_next_slab_is_read_while_the_network_works():
    reads, model = threading.Event(), pointwise_model("2d")

    class Slow:
        dtype, ndim, shape = np.dtype(np.float32), 4, (1, 2, 8, 8)

        def __getitem__(self, key):
            if key[-3].start == 1:
                reads.set()
            return np.zeros((1, 2, 8, 8), np.float32)[key]

    waited = []
    model.network.register_forward_hook(lambda *_: waited.append(reads.wait(10)))
    assert len(list(scores(model, Volume(Slow()), SegmentSettings(), RAW))) == 2
    assert waited == [True, True]
