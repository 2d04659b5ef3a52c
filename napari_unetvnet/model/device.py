"""The device and number format to compute in, and settings of the machine that make it fast."""

from __future__ import annotations

import ctypes
import logging
import platform
import time
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from napari_unetvnet.errors import FileProblem, OutOfMemory, SettingsProblem
from napari_unetvnet.files import cache_folder
from napari_unetvnet.json_files import read_json, write_json
from napari_unetvnet.temporary import remove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_unetvnet.settings import ComputeSettings

__all__ = [
    "FALLBACK",
    "autotuned_convolutions",
    "bf16_pays",
    "choose_device",
    "device_failed",
    "device_name",
    "faster_formats",
    "keep_freed_memory",
    "lacks_memory",
    "recall",
    "remember",
]

FALLBACK = "fallback.json"
"""File in the user's cache: options of the memory fallback that worked, by device and kind of computation."""
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
DEVICE_FAULT = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "device-side assert")

BF16 = "bf16.json"
LEAST_GAIN = 1.3
"""Minimum speed-up of convolutions for which bf16 is used."""
KEPT_BYTES = 2**30
MALLOPT = {"trim threshold": -1, "top pad": -2, "mmap threshold": -3}


def choose_device(settings: ComputeSettings) -> tuple[torch.device, str]:
    """Choose the device and number format.

    Returns
    -------
    device : torch.device
    precision : {"fp32", "bf16", "fp16"}

    Raises
    ------
    SettingsProblem
        If CUDA is requested but missing, or fp16 is requested on a CPU.
    """
    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise SettingsProblem("Device cuda was requested, but torch finds no CUDA GPU; choose device auto or cpu.")
    device = torch.device("cuda" if cuda and settings.device != "cpu" else "cpu")
    if settings.precision == "fp16" and device.type == "cpu":
        raise SettingsProblem("Precision fp16 is only for GPUs, since it is slow on a CPU; choose auto, bf16 or fp32.")
    if settings.precision != "auto":
        return device, settings.precision
    return device, "bf16" if "bf16" in faster_formats(device) else "fp32"


def faster_formats(device: torch.device) -> tuple[str, ...]:
    """Give the number formats that are faster than fp32 on a device, the fastest first.

    Returns
    -------
    tuple of {"bf16", "fp16"}
        Of two equally fast ones, the one that cannot overflow comes first.
    """
    if device.type != "cuda":
        return ("bf16",) if bf16_pays() else ()
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return "bf16", "fp16"
    return ("fp16",) if capability >= (7, 0) else ()  # bf16 is only emulated there


@cache
def bf16_pays() -> bool:
    """Whether convolutions are fast enough in bf16 on this CPU.

    Measured once per machine and cached, so that a repeated training uses the same format.

    Returns
    -------
    bool
    """
    key = device_name(torch.device("cpu"))
    pays = recall(BF16, key)
    if not isinstance(pays, bool):
        remember(BF16, key, pays := _measured_gain() >= LEAST_GAIN)
    return bool(pays)


def device_name(device: torch.device) -> str:
    """Identify the device and torch version that a measurement is valid for."""
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return f"{platform.node()} {named} torch {torch.__version__}"


def recall(file: str, key: str) -> Any:
    """Read a cached result for this machine.

    Parameters
    ----------
    file : str
        Name of the file in the user's cache.

    Returns
    -------
    What JSON holds, or None
        None if there is none.
    """
    return _read_cache(cache_folder() / file).get(key)


def remember(file: str, key: str, value: Any) -> None:
    """Cache a result; if the file cannot be written, it will be determined again.

    Parameters
    ----------
    file, key : str
        As for `recall`.
    """
    path = cache_folder() / file
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, _read_cache(path) | {key: value})


def _read_cache(path: Path) -> dict[str, Any]:
    """Read a cache file; a damaged one is reported and removed."""
    if not path.exists():
        return {}
    try:
        return read_json(path, dict, "its contents are determined again")
    except FileProblem as problem:
        logging.getLogger(__name__).warning("%s", problem)
        with suppress(OSError):
            remove(path)
        return {}


def _measured_gain() -> float:
    """Time a convolution of 32 channels in fp32 and in bf16, alternately; give the speed-up of bf16."""
    inputs = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(1, 32, 96, 96, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.ones(32, 32, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
        inputs[dtype] = (x, weight)
    shortest = dict.fromkeys(inputs, float("inf"))
    with torch.inference_mode():
        for _ in range(6):
            for dtype, (x, weight) in inputs.items():
                began = time.perf_counter()
                functional.conv2d(x, weight, padding=1)
                shortest[dtype] = min(shortest[dtype], time.perf_counter() - began)
    return shortest[torch.float32] / shortest[torch.bfloat16]


def lacks_memory(error: BaseException) -> bool:
    """Whether an error means that memory was exhausted.

    Parameters
    ----------
    error : exception
        Our own, Python's, or a RuntimeError of torch.

    Returns
    -------
    bool
    """
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def device_failed(error: BaseException) -> bool:
    """Whether an error means that the GPU failed, after which it is unusable in this process.

    Returns
    -------
    bool
        False if only memory was exhausted.
    """
    if lacks_memory(error) or not isinstance(error, RuntimeError):
        return False
    accelerator_error = getattr(torch, "AcceleratorError", ())  # before torch 2.8 only the message tells
    return isinstance(error, accelerator_error) or any(words in str(error) for words in DEVICE_FAULT)


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Reuse freed memory for the next layer instead of returning it to the system at once.

    glibc maps and clears new memory for the large arrays of every layer, which costs up to a third of the time. Without
    glibc nothing is done.

    Yields
    ------
    None
    """
    mallopt, trim = _glibc()
    for name, limit in (("mmap threshold", KEPT_BYTES), ("trim threshold", KEPT_BYTES), ("top pad", 64 * 2**20)):
        mallopt(MALLOPT[name], limit)
    try:
        yield
    finally:
        trim(0)


@contextmanager
def autotuned_convolutions(device: torch.device) -> Iterator[None]:
    """Enable cuDNN autotuning, which pays if all blocks have the same size.

    Algorithms differ in rounding, and another run may choose another one.

    Yields
    ------
    None
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _glibc() -> tuple[Callable[..., int], Callable[..., int]]:
    """Give the functions that tune the allocator; functions that do nothing without glibc."""

    def nothing(*_: int) -> int:
        return 0

    if platform.libc_ver()[0] != "glibc":
        return nothing, nothing
    try:
        library = ctypes.CDLL(None)
        return library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        return nothing, nothing
