"""From data to settings: what the user left open is chosen from the images, the labels and the device, with a reason.

A choice is left open by not setting it. Everything here is a rule with a sentence, and the same data and device give
the same plan. It is written to the run folder, so that a resumed run has it, too.
"""

from __future__ import annotations

from napari_unetvnet.training.plan.choice import Choice
from napari_unetvnet.training.plan.planner import Plan, load_plan, plan, save_plan

__all__ = ["Choice", "Plan", "load_plan", "plan", "save_plan"]
