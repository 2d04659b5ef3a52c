"""Check images and labels before time is spent on a training, and say what is probably a mistake.

A pair is read once and measured (`measure`, `thumbnail`), and only the numbers are kept (`facts`). Each check is a
small function of those numbers; `examine` lists them. A new check is a function and a line there.
"""

from __future__ import annotations

from napari_unetvnet.data.checks.examine import SEVERITIES, examine
from napari_unetvnet.data.checks.findings import ClassShare, Finding, PairSummary, Report
from napari_unetvnet.data.checks.meaning import is_of_meaning
from napari_unetvnet.data.checks.report import notices, refuse_contradictions, table

__all__ = [
    "SEVERITIES",
    "ClassShare",
    "Finding",
    "PairSummary",
    "Report",
    "examine",
    "is_of_meaning",
    "notices",
    "refuse_contradictions",
    "table",
]
