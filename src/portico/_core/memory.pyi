from typing_extensions import disjoint_base

from .hub import Hub
from .wire import Wire

@disjoint_base
class MemoryWire(Wire):
    def __init__(self, hub: Hub) -> None: ...

def memory_wires(hub: Hub) -> tuple[MemoryWire, MemoryWire]: ...
