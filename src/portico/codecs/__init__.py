"""Messages in bytes, without I/O."""

from portico._core import Codec as Codec
from portico._core import LengthPrefix as LengthPrefix
from portico._core import Lines as Lines
from portico._core import Netstrings as Netstrings
from portico._core import Records as Records
from portico.codecs.messages import Message as Message
from portico.codecs.messages import Messages as Messages
