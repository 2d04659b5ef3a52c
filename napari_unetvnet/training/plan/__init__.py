"""The plan: settings that the user left unset are chosen from the images, the labels and the device, with a reason.

Each choice follows a rule, and the same data and device give the same plan. It is saved in the run folder, so that a
resumed run uses it, too.
"""

from __future__ import annotations

from napari_unetvnet.training.plan.alternatives import another_plan
from napari_unetvnet.training.plan.choice import Decision
from napari_unetvnet.training.plan.planner import Plan, load_plan, plan, save_plan

__all__ = ["Decision", "Plan", "another_plan", "load_plan", "plan", "save_plan"]
