"""Everything a person can choose, each declared once: type, range, default and a sentence.

The form, the command line, the job file and the reference page are derived from these models. They are frozen, refuse
unknown names, and are checked together: a network that has no 3D form, a loss that does not fit the head, two budgets
at once are refused here, before anything runs.
"""

from napari_unetvnet.settings.base import ComputeSettings, Settings, checked
from napari_unetvnet.settings.convert import ConvertJob
from napari_unetvnet.settings.inspect import InspectJob
from napari_unetvnet.settings.labels import BLURS, LabelSettings
from napari_unetvnet.settings.normalisation import CONSTANTS, Normalisation
from napari_unetvnet.settings.postprocess import CleanJob, ObjectRule, PostprocessSettings
from napari_unetvnet.settings.segment import SegmentJob, SegmentSettings
from napari_unetvnet.settings.train import Sampling, TrainJob, TrainSettings

Job = TrainJob | SegmentJob | InspectJob
"""What a run folder may hold."""

__all__ = [
    "BLURS",
    "CONSTANTS",
    "CleanJob",
    "ComputeSettings",
    "ConvertJob",
    "InspectJob",
    "Job",
    "LabelSettings",
    "Normalisation",
    "ObjectRule",
    "PostprocessSettings",
    "Sampling",
    "SegmentJob",
    "SegmentSettings",
    "Settings",
    "TrainJob",
    "TrainSettings",
    "checked",
]
