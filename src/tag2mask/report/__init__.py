"""What a run shows: the page, the overview picture, and quick looks."""

from tag2mask.report.looks import save_look, save_patterns
from tag2mask.report.overview import OverviewRow, overlay, save_overview
from tag2mask.report.page import save_page
from tag2mask.report.survey import PhotoSet

__all__ = ["OverviewRow", "PhotoSet", "overlay", "save_look", "save_overview", "save_page", "save_patterns"]
