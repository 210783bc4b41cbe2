"""Class activation maps (Zhou et al. 2016) as scores for masks."""

from __future__ import annotations

from torch import Tensor


def normalised_cam(activation: Tensor) -> Tensor:
    r"""Return $\max(M_c, 0) / \max_u M_c(u)$ for each image and class, as is usual in this field.

    Background is where no present class exceeds a threshold; conflicts go to the larger value
    (`tag2mask.proxy.assign` with ``conflict="strongest"``).

    Args:
        activation: float N x C x h x w, as `Classifier.activation` gives it.

    Returns:
        float N x C x h x w, 0..1.
    """
    positive = activation.clamp_min(0)
    return positive / positive.amax((2, 3), keepdim=True).clamp_min(1e-6)
