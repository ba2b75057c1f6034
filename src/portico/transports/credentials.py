"""Who is at the other end of a Unix socket."""


class Credentials(tuple[int, int, int]):
    """`(pid, uid, gid)` of the process at the other end of a Unix socket."""

    __slots__ = ()

    def __new__(cls, pid: int, uid: int, gid: int) -> "Credentials":
        return super().__new__(cls, (pid, uid, gid))

    @property
    def pid(self) -> int:
        """The process."""
        return self[0]

    @property
    def uid(self) -> int:
        """Its user."""
        return self[1]

    @property
    def gid(self) -> int:
        """Its group."""
        return self[2]

    def __repr__(self) -> str:
        return f"Credentials(pid={self[0]}, uid={self[1]}, gid={self[2]})"
