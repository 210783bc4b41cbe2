"""The paper's tables and figures from one's own data, its figures beside ours."""

from tag2mask.reproduce.items import Reproduced
from tag2mask.reproduce.study import reproduce

__all__ = ["Reproduced", "reproduce"]
