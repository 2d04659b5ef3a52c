"""Where and in which number format to compute, and how to make the machine quick about it."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from napari_unetvnet.errors import FileProblem, OutOfMemory, SettingsProblem
from napari_unetvnet.files import read_json, remove, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
"""In the user's cache: what had to be made smaller to fit into memory, by device and kind of work."""
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
DEVICE_FAULT = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "device-side assert")

BF16 = "bf16.json"
LEAST_GAIN = 1.3
"""bf16 is taken if convolutions are at least so many times faster in it."""
KEPT_BYTES = 2**30
MALLOPT = {"trim threshold": -1, "top pad": -2, "mmap threshold": -3}


def choose_device(settings: ComputeSettings) -> tuple[torch.device, str]:
    """Decide where and in which number format to compute.

    Parameters
    ----------
    settings : ComputeSettings

    Returns
    -------
    device : torch.device
    precision : {"fp32", "bf16", "fp16"}

    Raises
    ------
    SettingsProblem
        If CUDA is asked for and there is none, or fp16 on a CPU.
    """
    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise SettingsProblem("Device cuda was asked for, but torch finds no CUDA GPU; choose device auto or cpu.")
    device = torch.device("cuda" if cuda and settings.device != "cpu" else "cpu")
    if settings.precision == "fp16" and device.type == "cpu":
        raise SettingsProblem("Precision fp16 is for GPUs only, on a CPU it is far slower; choose auto, bf16 or fp32.")
    if settings.precision != "auto":
        return device, settings.precision
    return device, "bf16" if "bf16" in faster_formats(device) else "fp32"


def faster_formats(device: torch.device) -> tuple[str, ...]:
    """Give the number formats in which a device computes faster than in fp32, the fastest first.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    tuple of {"bf16", "fp16"}
        Of two that are as fast, the one that cannot overflow comes first.
    """
    if device.type != "cuda":
        return ("bf16",) if bf16_pays() else ()
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return "bf16", "fp16"
    return ("fp16",) if capability >= (7, 0) else ()  # bf16 is only imitated there


@cache
def bf16_pays() -> bool:
    """Whether this CPU convolves so much faster in bf16 that it is worth it.

    Measured once a machine and remembered, so that a training repeated there computes in the same format.

    Returns
    -------
    bool
    """
    key = device_name(torch.device("cpu"))
    known = recall(BF16, key)
    if known is None:
        remember(BF16, key, known := _measured_gain() >= LEAST_GAIN)
    return bool(known)


def device_name(device: torch.device) -> str:
    """Name what a measurement is true for.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    str
    """
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return f"{platform.node()} {named} torch {torch.__version__}"


def recall(file: str, key: str) -> Any:
    """Give what was found out about this machine before.

    Parameters
    ----------
    file : str
        Name of the file in the user's cache.
    key : str

    Returns
    -------
    What JSON holds, or None
        None if it is not known.
    """
    return _known(_memory() / file).get(key)


def remember(file: str, key: str, value: Any) -> None:
    """Keep what was found out; where that cannot be written it is found out again next time.

    Parameters
    ----------
    file, key : str
        As for `recall`.
    value : what JSON holds
    """
    path = _memory() / file
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, _known(path) | {key: value})


def _known(path: Path) -> dict[str, Any]:
    """Read a file of the cache; one that is damaged is said to be, and is of no further use."""
    if not path.exists():
        return {}
    try:
        return read_json(path, dict, "what it held is found out again")
    except FileProblem as problem:
        logging.getLogger(__name__).warning("%s", problem)
        with suppress(OSError):
            remove(path)
        return {}


def _memory() -> Path:
    """Where to remember: ``$NAPARI_UNETVNET_CACHE``, by default a folder of the user's cache."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("NAPARI_UNETVNET_CACHE")
    return Path(chosen) if chosen else user_cache_path("napari-unetvnet", appauthor=False)


def _measured_gain() -> float:
    """Time a convolution of 32 channels in fp32 and in bf16, interleaved; give how many times faster bf16 is."""
    made = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(1, 32, 96, 96, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.ones(32, 32, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
        made[dtype] = (x, weight)
    best = dict.fromkeys(made, float("inf"))
    with torch.inference_mode():
        for _ in range(6):
            for dtype, (x, weight) in made.items():
                begun = time.perf_counter()
                functional.conv2d(x, weight, padding=1)
                best[dtype] = min(best[dtype], time.perf_counter() - begun)
    return best[torch.float32] / best[torch.bfloat16]


def lacks_memory(error: BaseException) -> bool:
    """Whether something was not done because memory did not suffice.

    Parameters
    ----------
    error : exception
        Of ours, of Python, or of torch, whose own are RuntimeErrors.

    Returns
    -------
    bool
    """
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def device_failed(error: BaseException) -> bool:
    """Whether a GPU failed, of which nothing more can be had in this process.

    Parameters
    ----------
    error : exception

    Returns
    -------
    bool
        False where only memory did not suffice.
    """
    if lacks_memory(error) or not isinstance(error, RuntimeError):
        return False
    own = getattr(torch, "AcceleratorError", None)  # since torch 2.8; before that the words alone tell
    return (own is not None and isinstance(error, own)) or any(words in str(error) for words in DEVICE_FAULT)


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let freed memory be used again for the next layer instead of giving it back to the system at once.

    The C library of Linux maps large arrays anew, and clears them, for every layer, which costs up to a third of the
    time. Elsewhere, and where the library is another one, nothing is done.

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
    """Let a GPU try which way to convolve is the fastest, which pays where all blocks have one size.

    Ways differ in rounding, and another run may find another one the fastest.

    Parameters
    ----------
    device : torch.device

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
    """Find the functions that tune the allocator; ones that do nothing where there are none."""

    def nothing(*_: int) -> int:
        return 0

    if platform.libc_ver()[0] != "glibc":
        return nothing, nothing
    try:
        library = ctypes.CDLL(None)
        return library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        return nothing, nothing
