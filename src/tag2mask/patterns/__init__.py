"""Class patterns (Eqs. 1 to 3): moments of each semantic subset, their leading eigenvector, and its sign."""

from tag2mask.patterns.estimator import ClassPatterns, discover

__all__ = ["ClassPatterns", "discover"]
