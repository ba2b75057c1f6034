from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from typing_extensions import disjoint_base

from .hub import Wait

_T = TypeVar("_T")

@disjoint_base
class Queue(Generic[_T]):
    def __init__(self) -> None: ...
    def put(self, item: _T) -> None: ...
    def get(self) -> Coroutine[Any, Any, _T]: ...
    def __len__(self) -> int: ...

@disjoint_base
class Get(Wait): ...
