"""What is finished in a thread: one thing at a time, in order, told when it is done, with its errors told here."""

from __future__ import annotations

import threading
import time

import pytest

from napari_unetvnet.inference import finish_in_background
from napari_unetvnet.inference.background_writer import PATIENCE


def threads():
    return [each for each in threading.enumerate() if each.name.startswith("finish")]


def test_things_come_in_order():
    assert list(finish_in_background(lambda n: n * 10, [3, 1, 2])) == [30, 10, 20]
    assert not list(finish_in_background(lambda n: n, []))
    assert not threads()


def test_a_thing_is_finished_while_the_next_one_is_made():
    begun, made = threading.Event(), threading.Event()

    def make():
        yield 0
        assert begun.wait(10)  # its finishing has begun and cannot end before the next one is made
        made.set()
        yield 1

    def finish(number):
        begun.set()
        assert made.wait(10)
        return number

    assert list(finish_in_background(finish, make())) == [0, 1]


def test_never_are_two_things_left_to_be_finished():
    running, most = [], []

    def finish(number):
        running.append(number)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(number)
        return number

    assert list(finish_in_background(finish, range(8))) == list(range(8))
    assert max(most) == 1


def test_a_thing_is_told_of_only_when_it_is_finished():
    finished = []

    def finish(number):
        time.sleep(0.01)
        finished.append(number)
        return number

    for number in finish_in_background(finish, range(4)):
        assert number in finished


def test_a_thing_that_is_quickly_finished_is_told_of_before_the_next_one_is_made():
    made = []

    def make():
        for number in range(3):
            time.sleep(0.4 / PATIENCE / 40)
            made.append(number)
            yield number

    for number in finish_in_background(lambda n: n, make()):
        assert made[-1] == number


def test_what_goes_wrong_is_raised_here_and_the_thread_ends():
    def finish(number):
        if number == 1:
            raise OSError("the disk is full")
        return number

    coming = finish_in_background(finish, range(5))
    assert next(coming) == 0
    with pytest.raises(OSError, match="disk is full"):
        list(coming)
    assert not threads()


def test_what_was_made_before_something_went_wrong_is_finished_and_told():
    def make():
        yield 0
        yield 1
        raise ValueError("broken")

    def finish(number):
        time.sleep(0.05)
        told.append(number)
        return number

    told, seen = [], []
    with pytest.raises(ValueError, match="broken"):
        for number in finish_in_background(finish, make()):
            seen.append(number)
    assert seen == told == [0, 1]


def test_closing_waits_for_what_is_being_finished_and_ends_the_thread():
    finished = []

    def finish(number):
        time.sleep(0.02)
        finished.append(number)
        return number

    coming = finish_in_background(finish, range(100))
    next(coming)
    coming.close()
    assert not threads()
    assert len(finished) <= 2
