"""The data doctor: what cannot be trained on is refused, what is probably a mistake is said before time is spent on it.

A pair is read once and measured (`measure`, `picture`), and only the numbers are kept (`facts`). Each check is a small
function of those numbers; `doctor` lists them. A new check is a function and a line there.
"""

from __future__ import annotations

from napari_unetvnet.checks.doctor import examine
from napari_unetvnet.checks.findings import ClassShare, Examined, Finding, Report
from napari_unetvnet.checks.refusals import check_channels, check_pair, check_size
from napari_unetvnet.checks.report import notices, table

__all__ = [
    "ClassShare",
    "Examined",
    "Finding",
    "Report",
    "check_channels",
    "check_pair",
    "check_size",
    "examine",
    "notices",
    "table",
]
