"""A dense CRF that needs no compiler."""

from tag2mask.crf.dense import at_side, dense_crf, dense_crf_many, prepare

__all__ = ["at_side", "dense_crf", "dense_crf_many", "prepare"]
