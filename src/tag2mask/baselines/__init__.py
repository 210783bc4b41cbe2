"""Other ways from a classifier to masks, for rows beside ours."""

from tag2mask.baselines.cam import grad_cam, grad_cam_scores, normalised_cam
from tag2mask.baselines.ddt import ddt_scores, discover_ddt, largest_component

__all__ = [
    "ddt_scores",
    "discover_ddt",
    "grad_cam",
    "grad_cam_scores",
    "largest_component",
    "normalised_cam",
]
