"""The paper's tables and figures from one's own data, its figures beside ours."""

from tag2mask.reproduce.study import Reproduced, reproduce

__all__ = ["Reproduced", "reproduce"]
