"""The PROXY header in bytes: what the specification allows is taken, everything else refused, at every cut."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import portico
from portico import Address, ProxyHeader
from portico.protocols.proxy_header import MAX_LINE, MAX_SIZE, SIGNATURE, TLV, ProxySSL, crc32c

LONG6 = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1234"
PAIRS = {
    "tcp4": ("tcp://192.0.2.1:56324", "tcp://198.51.100.7:443"),
    "tcp6": (f"tcp://[{LONG6}]:65535", "tcp://[2001:db8::7]:0"),
    "udp4": ("udp://192.0.2.1:56324", "udp://198.51.100.7:53"),
    "unix": ("unix:/run/client.sock", "unix:/run/server.sock"),
    "abstract": ("unix:@client", "unix:@server"),
}
ALL_TLVS = (
    (TLV.ALPN, b"h2"),
    (TLV.AUTHORITY, "grüße.example".encode()),
    (TLV.CRC32C, b""),
    (TLV.NOOP, b"\0\0\0\0"),
    (TLV.UNIQUE_ID, b"\x00\xffid"),
    (TLV.NETNS, b"blue"),
    (0xE1, b""),
)


def header(pair: str = "tcp4", **settings: object) -> ProxyHeader:
    source, destination = (Address.parse(text) for text in PAIRS[pair])
    return ProxyHeader(source=source, destination=destination, **settings)  # type: ignore[arg-type]


def block(kind: int, rest: bytes, command: int = 0x21) -> bytes:
    """A header of version 2, whatever it says."""
    return SIGNATURE + struct.pack("!BBH", command, kind, len(rest)) + rest


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


GOOD = {
    "v1-tcp4": header(version=1).encode(),
    "v1-tcp6": header("tcp6", version=1).encode(),
    "v1-unknown": b"PROXY UNKNOWN\r\n",
    "v1-unknown-with-more": b"PROXY UNKNOWN ffff:f and \n anything\r\n",
    "v2-tcp4": header().encode(),
    "v2-tlvs": header("tcp6", tlvs=ALL_TLVS).encode(),
    "v2-unix": header("unix").encode(),
    "v2-local": ProxyHeader(local=True).encode(),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("tlvs", [(), ALL_TLVS], ids=["bare", "tlvs"])
def test_version_2_comes_back_as_it_was(pair: str, tlvs: tuple[tuple[int, bytes], ...]) -> None:
    data = header(pair, tlvs=tlvs).encode()
    found = ProxyHeader.parse(data)
    assert found is not None
    assert found[1] == len(data)
    assert (found[0].source, found[0].destination) == tuple(Address.parse(text) for text in PAIRS[pair])
    assert [kind for kind, _ in found[0].tlvs] == [kind for kind, _ in tlvs]
    assert found[0].encode() == data


@pytest.mark.parametrize("pair", ["tcp4", "tcp6"])
def test_version_1_comes_back_as_it_was(pair: str) -> None:
    data = header(pair, version=1).encode()
    assert ProxyHeader.parse(data + b"more") == (header(pair, version=1), len(data))


def test_the_bytes_are_those_of_the_specification() -> None:
    assert header(version=1).encode() == b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
    assert header("unix", version=1).encode() == header("udp4", version=1).encode() == b"PROXY UNKNOWN\r\n"
    assert header().encode() == bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0000201 c6336407 dc04 01bb")
    assert ProxyHeader(local=True).encode() == bytes.fromhex("0d0a0d0a000d0a515549540a 20 00 0000")
    assert ProxyHeader().encode() == bytes.fromhex("0d0a0d0a000d0a515549540a 21 00 0000")
    assert len(header("unix").encode()) == 16 + 216
    assert header("abstract").encode()[16:].startswith(b"\0client\0")


def test_secure_addresses_and_zones_are_told_as_what_they_are_below() -> None:
    source, destination = Address("tls", "fe80::1", 5, scope="7"), Address("tls", "fe80::2", 6)
    found = ProxyHeader.parse(ProxyHeader(source=source, destination=destination).encode())
    assert found is not None
    assert [str(found[0].source), str(found[0].destination)] == ["tcp://[fe80::1]:5", "tcp://[fe80::2]:6"]
    assert ProxyHeader(1, source=source, destination=destination).encode() == b"PROXY TCP6 fe80::1 fe80::2 5 6\r\n"


def test_unix_datagrams_have_a_scheme_of_their_own() -> None:
    data = bytearray(header("unix").encode())
    data[13] = 0x32
    found = ProxyHeader.parse(bytes(data))
    assert found is not None and found[0].source == Address("unixgram", path="/run/client.sock")
    assert found[0].encode() == data


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
def test_every_part_of_a_header_waits_for_the_rest(data: bytes) -> None:
    for size in range(len(data)):
        assert ProxyHeader.parse(data[:size]) is None, size
    whole = ProxyHeader.parse(data)
    assert whole is not None and whole[1] == len(data)
    assert ProxyHeader.parse(memoryview(data + data)) == whole


def test_mapped_addresses_are_taken_as_haproxy_writes_them() -> None:
    found = ProxyHeader.parse(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n")
    assert found is not None and found[0].source is not None
    assert found[0].source.packed == b"\0" * 10 + b"\xff\xff\xc0\0\2\1"


@pytest.mark.parametrize(
    ("line", "offset"),
    [
        (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", 6),
        (b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 6),
        (b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", 6),
        (b"PROXY \r\n", 6),
        (b"PROXY TCP4\r\n", 11),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", 11),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", 11),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", 11),
        (b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", 11),
        (b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", 11),
        (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", 11),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", 11),
        (b"PROXY TCP4 localhost 1.2.3.4 1 2\r\n", 11),
        (b"PROXY TCP4 \xd9\xa1.2.3.4 1.2.3.4 1 2\r\n", 11),
        (b"PROXY TCP6 1.2.3.4 ::1 1 2\r\n", 11),
        (b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", 11),
        (b"PROXY TCP6 ::1 ::1::1 1 2\r\n", 15),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", 27),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 02\r\n", 29),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", 27),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n", 29),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n", 29),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 " + b"9" * 40 + b"\r\n", 29),
        (b"PROXY UNKNOWN" + b" " * (MAX_LINE - 13), MAX_LINE),
        (b"PROXY UNKNOWN" + b" " * (MAX_LINE - 14) + b"\r\n", MAX_LINE),
        (b"PROXZ", 0),
        (b"proxy TCP4", 0),
        (b"\r\n\r\n\0\r\nQUIT\r", 0),
        (b"GET / HTTP/1.1\r\n", 0),
        (b"\x16\x03\x01", 0),
    ],
)
def test_what_is_no_header_is_refused_where_it_goes_wrong(line: bytes, offset: int) -> None:
    with pytest.raises(portico.ProtocolError) as caught:
        ProxyHeader.parse(line)
    assert caught.value.offset == offset
    assert str(caught.value).startswith("bad PROXY header: ") and "\n" not in str(caught.value)


def test_the_longest_line_is_taken() -> None:
    line = b"PROXY UNKNOWN " + b"f" * (MAX_LINE - 16) + b"\r\n"
    assert len(line) == MAX_LINE
    assert ProxyHeader.parse(line) == (ProxyHeader(1), MAX_LINE)


IN4 = bytes(12)


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (SIGNATURE + b"\x11", 12),
        (SIGNATURE + b"\x01", 12),
        (SIGNATURE + b"\x31", 12),
        (SIGNATURE + b"\x22", 12),
        (block(0x41, IN4), 13),
        (block(0x13, IN4), 13),
        (block(0xFF, IN4), 13),
        (block(0x11, bytes(11)), 16),
        (block(0x21, bytes(35)), 16),
        (block(0x31, bytes(215)), 16),
        (block(0x11, IN4 + b"\x01"), 28),
        (block(0x11, IN4 + b"\x01\0"), 28),
        (block(0x11, IN4 + b"\x01\0\x02x"), 29),
        (block(0x11, IN4 + tlv(2, b"x") + b"\x01\xff\xff"), 33),
        (block(0x11, IN4 + tlv(TLV.CRC32C, bytes(3))), 31),
        (block(0x11, IN4 + tlv(TLV.CRC32C, bytes(4))), 31),
        (block(0x11, IN4 + tlv(TLV.UNIQUE_ID, bytes(129))), 31),
        (block(0x11, IN4 + tlv(TLV.SSL, bytes(4))), 31),
        (block(0x11, IN4 + tlv(TLV.SSL, bytes(5) + b"\x21\0\x09TLS")), 37),
    ],
)
def test_a_bad_block_is_refused_where_it_goes_wrong(data: bytes, offset: int) -> None:
    with pytest.raises(portico.ProtocolError) as caught:
        ProxyHeader.parse(data)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "data",
    [
        block(0x00, b""),
        block(0x00, b"what nobody understands"),
        block(0x10, bytes(8)),
        block(0x01, IN4),
        block(0x11, IN4, command=0x20),
        block(0x11, b"\1\2", command=0x20),
        block(0xFF, b"\1\2", command=0x20),
        block(0x00, b"\xff" * 99, command=0x20),
        block(0x11, IN4 + tlv(TLV.UNIQUE_ID, bytes(129)), command=0x20),
        block(0x11, IN4 + tlv(TLV.SSL, b"a"), command=0x20),
        block(0x11, IN4 + tlv(TLV.SSL, bytes(5) + b"\x21\0\x09TLS"), command=0x20),
        block(0x11, IN4 + tlv(TLV.CRC32C, b"a"), command=0x20),
    ],
)
def test_what_must_be_skipped_is_skipped(data: bytes) -> None:
    """Unknown families, and all that LOCAL is followed by (sections 2.2)."""
    assert ProxyHeader.parse(data + b"rest") == (ProxyHeader(local=data[12] == 0x20), len(data))


def test_tlvs_behind_local_are_read() -> None:
    sent = ProxyHeader(local=True, tlvs=((TLV.CRC32C, b""), (TLV.UNIQUE_ID, b"check")))
    found = ProxyHeader.parse(sent.encode())
    assert found is not None and found[0].local and found[0].unique_id == b"check"
    damaged = sent.encode()[:-1] + b"K"
    with pytest.raises(portico.ProtocolError, match="CRC32C"):
        ProxyHeader.parse(damaged)


def test_size_is_limited_before_anything_is_waited_for() -> None:
    whole = header(tlvs=((0xE0, bytes(MAX_SIZE - 31)),)).encode()
    assert len(whole) == MAX_SIZE and ProxyHeader.parse(whole) is not None
    longer = block(0x11, bytes(MAX_SIZE - 15))
    with pytest.raises(portico.MessageTooLarge, match="max_proxy_header") as caught:
        ProxyHeader.parse(longer[:16])
    assert (caught.value.size, caught.value.limit) == (MAX_SIZE + 1, MAX_SIZE)
    assert ProxyHeader.parse(longer[:16], max_size=65551) is None


def test_a_forged_bit_anywhere_is_seen_by_the_checksum() -> None:
    data = header(tlvs=ALL_TLVS).encode()
    kind_of_checksum = data.index(tlv(TLV.CRC32C, b"")[:1] + b"\0\4", 28)  # another type is no checksum
    for place in {*range(16, len(data))} - {kind_of_checksum}:
        forged = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        with pytest.raises(portico.ProtocolError):
            ProxyHeader.parse(forged)


def test_crc32c_is_castagnolis() -> None:
    """The check value, and the examples of RFC 3720, appendix B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_known_tlvs_have_names() -> None:
    ssl = struct.pack("!BI", 3, 0) + tlv(TLV.SSL_VERSION, b"TLSv1.3") + tlv(TLV.SSL_CN, b"anna")
    ssl += tlv(TLV.SSL_CIPHER, b"TLS_AES_128_GCM_SHA256") + tlv(TLV.SSL_SIG_ALG, b"SHA256")
    ssl += tlv(TLV.SSL_KEY_ALG, b"RSA2048") + tlv(0x99, b"?")
    found = ProxyHeader.parse(header(tlvs=(*ALL_TLVS, (TLV.SSL, ssl), (TLV.ALPN, b"second"))).encode())
    assert found is not None
    told = found[0]
    assert (told.alpn, told.authority, told.unique_id, told.netns) == (b"h2", "grüße.example", b"\x00\xffid", "blue")
    assert told.crc32c is not None and told.tlv(0xE1) == b"" and told.tlv(0xE2) is None
    cipher = "TLS_AES_128_GCM_SHA256"
    assert told.ssl == ProxySSL(3, 0, "TLSv1.3", "anna", cipher, "SHA256", "RSA2048")
    assert told.ssl.verified and not ProxySSL(1, 0).verified and not ProxySSL(3, 1).verified
    bare = ProxyHeader()
    assert (bare.alpn, bare.authority, bare.crc32c, bare.unique_id, bare.netns, bare.ssl) == (None,) * 6


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"version": 3}, "versions 1 and 2"),
        ({"source": Address("tcp", "1.2.3.4", 5)}, "or neither"),
        ({"source": Address("tcp", "1.2.3.4", 5), "destination": Address("tcp", "::1", 5)}, "two families"),
        ({"source": Address("tcp", "1.2.3.4", 5), "destination": Address("udp", "1.2.3.4", 5)}, "two families"),
        ({"source": Address("tcp", "example.org", 5), "destination": Address("tcp", "1.2.3.4", 5)}, "example.org"),
        ({"source": Address("mem", path="x"), "destination": Address("mem", path="x")}, "mem:x"),
        ({"version": 1, "tlvs": ((1, b""),)}, "version 2"),
        ({"tlvs": ((256, b""),)}, "0 to 255"),
        ({"tlvs": ((1, "text"),)}, "bytes"),
        ({"tlvs": ((1, bytes(65_400)),)}, "too many"),
    ],
)
def test_what_no_header_can_say_is_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(portico.ConfigurationError, match=complaint):
        ProxyHeader(**settings)  # type: ignore[arg-type]


class Relayed:
    def __init__(self, remote: str, local: str) -> None:
        self.remote_address, self.local_address = Address.parse(remote), Address.parse(local)


def test_a_relay_tells_whom_it_relays() -> None:
    accepted = Relayed("tls://192.0.2.1:56324", "tls://198.51.100.7:443")
    assert ProxyHeader.of(accepted).encode() == header().encode()
    assert ProxyHeader.of(accepted, 1).encode() == header(version=1).encode()
    assert ProxyHeader.of(accepted, tlvs={TLV.ALPN: b"h2"}).alpn == b"h2"
    assert ProxyHeader.of(accepted, tlvs=iter([(TLV.ALPN, b"h2")])).alpn == b"h2"
    mapped = Relayed("tcp://[::ffff:192.0.2.1]:56324", "tcp://[::ffff:198.51.100.7]:443")
    assert ProxyHeader.of(mapped).encode() == header().encode()
    nobody = Relayed("mem:room", "mem:room")
    assert ProxyHeader.of(nobody) == ProxyHeader()
    assert ProxyHeader.of(nobody, 1).encode() == b"PROXY UNKNOWN\r\n"


addresses = st.one_of(
    *(
        st.tuples(*[st.builds(Address, st.just(scheme), ip.map(str), st.integers(0, 65535))] * 2)
        for scheme in ("tcp", "udp")
        for ip in (st.ip_addresses(v=4), st.ip_addresses(v=6))
    )
)
fields = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind not in (TLV.SSL, TLV.CRC32C)), st.binary(max_size=128)),
    max_size=8,
)


@given(addresses, fields)
def test_whatever_is_encoded_is_understood(pair: tuple[Address, Address], tlvs: list[tuple[int, bytes]]) -> None:
    sent = ProxyHeader(source=pair[0], destination=pair[1], tlvs=tuple(tlvs))
    data = sent.encode()
    assert ProxyHeader.parse(data + b"rest") == (sent, len(data))


@given(st.sampled_from(list(GOOD.values())), st.randoms(use_true_random=False))
def test_damage_is_an_error_of_ours_or_another_header(data: bytes, chance: random.Random) -> None:
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    try:
        found = ProxyHeader.parse(bytes(damaged))
    except portico.PorticoError:
        return
    if found is not None:
        told, size = found
        assert size <= len(damaged)
        again = ProxyHeader.parse(told.encode())
        assert again is not None and (again[0].source, again[0].ssl) == (told.source, told.ssl)


def test_addresses_of_one_family_never_pass_for_another() -> None:
    for kind, size in ((0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216)):
        assert ProxyHeader.parse(block(kind, bytes(size))) is not None
        with pytest.raises(portico.ProtocolError):
            ProxyHeader.parse(block(kind, bytes(size - 1)))
