"""Time and memory of the U-Net weight map, and its difference from a map by one distance transform per object.

Run: python benchmarks/weight_map.py [--size 1024] [--objects 500] [--part 40]

Random discs, some touching, some separate, some covered by later ones. The map is computed five times; the slow method,
one transform of the whole image per object of which the two smallest are kept, is run for the first ``part`` objects
only. One process, one thread.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from statistics import median

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.draw import disk

from napari_unetvnet.data.targets import separation_weights

W0, SIGMA = 10.0, 5.0


def discs(count, size, seed=0):
    """Return ids (1, Y, X) of discs with radii from 6 to 18 voxels."""
    rng = np.random.default_rng(seed)
    objects = np.zeros((1, size, size), np.uint16)
    for number in range(1, count + 1):
        rows, columns = disk(rng.uniform(0, size, 2), rng.uniform(6, 18), shape=(size, size))
        objects[0, rows, columns] = number
    return objects


def slow_map(objects):
    """Return the separation term on background, by one transform per object."""
    nearest, second = np.full((2, *objects.shape), np.inf)
    for number in np.unique(objects)[1:]:
        distance = distance_transform_edt(objects != number)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    return np.where(objects == 0, W0 * np.exp(-((nearest + second) ** 2) / (2 * SIGMA**2)), 0)


def seconds(function, times):
    """Return the median seconds of repeated calls."""
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        durations.append(time.perf_counter() - start)
    return median(durations)


def peak_bytes(function):
    """Return the peak memory of a call, including its result."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main():
    """Time the map, then compare it for the first objects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--objects", type=int, default=500)
    parser.add_argument("--part", type=int, default=40)
    chosen = parser.parse_args()

    objects = discs(chosen.objects, chosen.size)
    count = len(np.unique(objects)) - 1
    duration = seconds(lambda: separation_weights(objects), 5)
    peak = peak_bytes(lambda: separation_weights(objects))
    print(f"{chosen.size} x {chosen.size}, {count} objects: {duration:.3f} s, median of 5")
    print(f"peak memory {peak / 1e6:.0f} MB, {peak / objects.size:.0f} bytes per voxel")

    part = np.where(objects <= chosen.part, objects, 0)
    slow = seconds(lambda: slow_map(part), 1)
    fast = seconds(lambda: separation_weights(part), 5)
    difference = np.abs(separation_weights(part, balance=False) - 1 - slow_map(part)).max()
    number = len(np.unique(part)) - 1
    print(f"{number} objects: {fast:.3f} s, one transform per object {slow:.2f} s; largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
