"""Connecting: all addresses of a name at once, one deadline, further tries, and connections that come back."""

from portico.client.connect import Connecting as Connecting
from portico.client.connect import ConnectSettings as ConnectSettings
from portico.client.connect import connect as connect
from portico.client.reconnecting import reconnecting as reconnecting
from portico.client.retry import Retry as Retry
from portico.client.retry import is_temporary as is_temporary
