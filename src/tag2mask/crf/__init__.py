"""A dense CRF that needs no compiler."""

from tag2mask.crf.dense import dense_crf, dense_crf_many, prepare

__all__ = ["dense_crf", "dense_crf_many", "prepare"]
