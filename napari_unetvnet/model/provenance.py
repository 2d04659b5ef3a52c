"""Provenance of a training: hashes of the inputs, versions of the software, and the machine.

Together with the job, the plan and the events (settings, split and curves), this tells whether two models should be
equal. The model card has a short form.
"""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from pydantic import AfterValidator
from typing_extensions import TypedDict  # that of typing lacks what pydantic needs before Python 3.12

from napari_unetvnet.events import Count  # noqa: TC001 (the schema of the file)
from napari_unetvnet.images.sources import paths_of, split_dataset
from napari_unetvnet.json_files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch

    from napari_unetvnet.images.io import PairFiles

__all__ = ["Earlier", "Input", "brief", "describe_input", "hardware", "read_inputs", "save_provenance"]


def _is_complete(pair: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    if not {"image", "label"} <= set(pair) or any(not {"file", "hash"} <= set(each) for each in pair.values()):
        raise ValueError("file and hash of image and label are expected")
    return pair


Input = Annotated[dict[str, dict[str, str]], AfterValidator(_is_complete)]
"""Image, labels and mask of a pair: for each its file and a hash of it."""


class Earlier(TypedDict):
    """Other inputs that a resumed training had until a step."""

    until_step: Count
    inputs: list[Input]


class _Hardware(TypedDict):
    device: str


class _Provenance(TypedDict):
    inputs: list[Input]
    earlier: NotRequired[list[Earlier]]
    hardware: _Hardware


ADVICE = "resume the run, which writes it again"

PACKAGES = ("napari-unetvnet", "torch", "numpy", "scipy", "scikit-image", "napari", "monai", "nibabel", "tifffile")
MOST_BYTES = 8 * 2**30
"""Of larger inputs only file names and sizes are hashed: reading them would delay the training."""


def save_provenance(
    path: Path,
    inputs: Sequence[Input],
    device: torch.device,
    precision: str,
    earlier: Sequence[Earlier] = (),
) -> None:
    """Write the provenance of a training.

    Parameters
    ----------
    inputs : sequence of dict
        Of the training, from `describe_input`.
    earlier : sequence of dict
        Other inputs that a resumed training had before: "until_step" and "inputs" of each.
    """
    provenance = {
        "inputs": list(inputs),
        "earlier": list(earlier),
        "versions": _versions(),
        "hardware": hardware(device) | {"precision": precision},
    }
    write_json(path, provenance)


def read_inputs(path: Path) -> tuple[list[Input], list[Earlier]]:
    """Read what `save_provenance` wrote about inputs.

    Returns
    -------
    inputs : list of dict
    earlier : list of dict

    Raises
    ------
    FileProblem
        If it is damaged.
    """
    provenance = read_json(path, _Provenance, ADVICE)
    return provenance["inputs"], provenance.get("earlier", [])


def brief(path: Path) -> dict[str, str]:
    """Give the short form of the provenance for the model card.

    Parameters
    ----------
    path : Path
        As `save_provenance` wrote it.

    Returns
    -------
    dict
        "inputs", one hash over all, and "device"; empty if there is no such file.
    """
    if not path.exists():
        return {}
    inputs, earlier = read_inputs(path)
    before = [f"; until step {each['until_step']} sha256 {_digest(each['inputs'])}" for each in earlier]
    return {
        "inputs": f"{len(inputs)} image(s), sha256 {_digest(inputs)}{''.join(before)}",
        "device": read_json(path, _Provenance, ADVICE)["hardware"]["device"],
    }


def _digest(inputs: Sequence[Input]) -> str:
    hashes = [pair[name]["hash"] for pair in inputs for name in ("image", "label", "mask") if name in pair]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def hardware(device: torch.device) -> dict[str, Any]:
    """Describe the hardware.

    Returns
    -------
    dict
        device, processor, cores, threads, memory_gib and system.
    """
    import psutil
    import torch

    processor = _processor()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor,
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
    }


def _processor() -> str:
    """Name of the processor model."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 (the file exists only on Linux)
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # not needed for this training
    return versions


def describe_input(pair: PairFiles, content: str) -> Input:
    """Describe image, labels and mask of a pair.

    Parameters
    ----------
    content : str
        Hash of the intensities of the image, which do not depend on its file.

    Returns
    -------
    dict
        Files and hashes of "image", "label" and "mask".
    """
    sources = {"image": pair.image, "label": pair.label, "mask": pair.mask}
    described: Input = {name: {"file": source, "hash": _hash(source)} for name, source in sources.items() if source}
    described["image"]["content"] = content
    return described


def _hash(source: str) -> str:
    """Hash the contents of the files of a source, or only their sizes if they are too large."""
    files = list(_files(source))
    digest = hashlib.sha256()
    small = sum(path.stat().st_size for path, _ in files) <= MOST_BYTES
    for path, name in files:
        digest.update(f"{name} {path.stat().st_size}\n".encode())
        if small:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{'sha256' if small else 'sizes'}:{digest.hexdigest()}"


def _files(source: str) -> Iterator[tuple[Path, str]]:
    """List the files of a source, with names independent of their location."""
    for part in paths_of(source):
        path, _ = split_dataset(part)
        if path.is_dir():
            yield from ((file, file.relative_to(path).as_posix()) for file in sorted(path.rglob("*")) if file.is_file())
        else:
            yield path, path.suffix
