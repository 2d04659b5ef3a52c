"""What a training leaves as it is: told once, and refused where that would be random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari_unetvnet.networks.base import SegmentationNetwork
    from napari_unetvnet.settings import TrainSettings

__all__ = ["frozen_notices"]

LAST_EPOCH = 10**9
MOST_NAMES = 4


def frozen_notices(network: SegmentationNetwork, settings: TrainSettings, initialised: Collection[str]) -> list[str]:
    """Say which modules are trained, if not all are.

    Parameters
    ----------
    initialised : collection of str
        Tensors that were not copied from another model.

    Returns
    -------
    list of str
        One sentence; none if the whole network is trained from the start.

    Raises
    ------
    SettingsProblem
        If tensors with random values would never be trained.
    """
    always, first = (_frozen(network, epoch) for epoch in (LAST_EPOCH, 0))
    random = [name for name in initialised if name in always and not name.startswith(network.pretrained)]
    if random:
        raise SettingsProblem(
            f"With {_options(settings)}, {_listed(random)} of {settings.network} would never be trained, but have "
            "random values; start from a model that has them (start_from), with the same encoder, width and options."
        )
    if not first:
        return []
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    trained = dict.fromkeys(name.partition(".")[0] for name in sizes if name not in first)
    partly = [f"part of {name}" if any(n.startswith(f"{name}.") for n in first) else name for name in trained]
    count = sum(size for name, size in sizes.items() if name not in first)
    until = "" if always == first else " for the first epochs"
    return [
        f"Trained are {', '.join(partly)}: {count:,} of {sum(sizes.values()):,} parameters. All others keep their "
        f"values{until}, running statistics of batch norm included."
    ]


def _frozen(network: SegmentationNetwork, epoch: int) -> set[str]:
    """Give the names of the parameters that are frozen in an epoch."""
    network.freeze_for(epoch)
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


def _options(settings: TrainSettings) -> str:
    return " and ".join(f"{name}={settings.option[name]}" for name in ("train", "freeze") if name in settings.option)


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:MOST_NAMES]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
