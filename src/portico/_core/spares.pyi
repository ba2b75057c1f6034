from typing_extensions import disjoint_base

from .hub import Hub
from .timers import Timed

@disjoint_base
class Spares(Timed):
    def __init__(self, hub: Hub) -> None: ...
    @property
    def size(self) -> int: ...
