from typing import Any

from typing_extensions import disjoint_base

from .channel import ChannelBase
from .frames import Frames

@disjoint_base
class FrameReader(ChannelBase[Any]):
    @property
    def frames(self) -> Frames: ...
