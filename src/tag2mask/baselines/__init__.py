"""Other ways from a classifier to masks, for rows beside ours."""

from tag2mask.baselines.cam import normalised_cam

__all__ = ["normalised_cam"]
