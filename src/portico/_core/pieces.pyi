from collections.abc import Coroutine
from typing import Any

from typing_extensions import disjoint_base

from .frame_reader import FrameReader

@disjoint_base
class Piece: ...

@disjoint_base
class PieceReader(FrameReader):
    def receive_in_pieces(self) -> None: ...
    def recv_piece(self) -> Coroutine[Any, Any, tuple[Any, bool]]: ...
