"""What a run shows: the overview picture."""

from tag2mask.report.overview import OverviewRow, overlay, save_overview

__all__ = ["OverviewRow", "overlay", "save_overview"]
