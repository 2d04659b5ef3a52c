"""Another plan for a training that does not learn: what was planned is changed, what the user set stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.settings import checked
from napari_unetvnet.training.plan.choice import Decision
from napari_unetvnet.training.plan.planner import Plan, plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["another_plan"]

REASON = "the first plan did not learn"
SLOWER = 4


def another_plan(
    pairs: Sequence[Pair], settings: TrainSettings, device: str, tried: Plan, changed: Mapping[str, Any]
) -> tuple[Plan, dict[str, Any]] | None:
    """Change one more planned setting: the view, then the norm, then the learning rate.

    Parameters
    ----------
    settings : TrainSettings
        As the user set them.
    device : {"cpu", "cuda"}
    tried : Plan
        The plan that did not learn.
    changed : mapping of str to JSON value
        Settings in which it differs already from the first plan.

    Returns
    -------
    plan : Plan
    changed : dict of str to JSON value
        Settings in which this plan differs from the first one.
        None instead of both if nothing is left to change.
    """
    if settings.start_from is not None:
        return None
    for name, value in _changes(tried.settings).items():
        if name not in settings.model_fields_set and name not in changed:
            now = {**changed, name: value}
            own = {field: getattr(settings, field) for field in settings.model_fields_set}
            made = plan(pairs, checked(type(settings), own | now), device)
            choices = [Decision(field, given, REASON) for field, given in now.items()]
            return Plan(made.settings, (*choices, *made.choices)), now
    return None


def _changes(settings: TrainSettings) -> dict[str, Any]:
    """Give what may be changed, the most promising first."""
    changes: dict[str, Any] = {}
    if settings.view == "3d" and settings.network == "unet_padding":
        changes["view"] = "2.5d"
    if settings.network == "unet_padding" and settings.option.get("norm", "batch") == "batch":
        changes["option"] = {**settings.option, "norm": "instance"}
    return changes | {"learning_rate": settings.peak_rate / SLOWER}
