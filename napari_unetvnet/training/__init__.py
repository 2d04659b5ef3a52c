"""The training loop as a generator: whoever runs it asks for one step after the other, and stops by asking no more.

Everything that a step depends on is a pure function of the seed and its number (`Schedule.rate`, the patches, their
augmentation, dropout), so a run can be repeated and resumed.
"""

from napari_unetvnet.training.keep import BEST, LAST
from napari_unetvnet.training.loop import steps

__all__ = ["BEST", "LAST", "steps"]
