"""`portico resolve`: names to addresses and back, one line each."""

from portico.address import SCHEMES, Address
from portico.client.racing import interleaved
from portico.errors import ResolveError
from portico.transports.resolve import name_of, resolve


async def run_resolve(target: str, *, numeric: bool, reverse: bool, family: int, timeout: float | None) -> None:
    """Print the addresses of `target` in the order in which `connect` tries them.

    :param numeric: ask nobody.
    :param reverse: print beside each address the name and the service that belong to it."""
    found = await resolve(target, family=family, numeric_only=numeric, timeout=timeout)
    for address in interleaved(found):
        print(shown(address) + (f"\t{await _names(address, numeric, timeout)}" if reverse else ""), flush=True)


def shown(address: Address) -> str:
    """Return the address as people write it without a scheme, or the host alone where there is no port."""
    if not SCHEMES[address.scheme].is_internet:
        return str(address)
    text = str(address.carrier if SCHEMES[address.scheme].carrier else address).partition("://")[2]
    if address.port:
        return text
    return text.rpartition(":")[0].strip("[]") or "*"


async def _names(address: Address, numeric: bool, timeout: float | None) -> str:
    try:
        host, service = await name_of(address, numeric_only=numeric, timeout=timeout)
    except ResolveError as error:
        return f"({error.text})"
    return f"{host}\t{service}" if address.port else host
