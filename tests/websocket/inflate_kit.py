"""How far back a raw deflate stream refers: a reader of RFC 1951 that zlib has no means for."""

from collections.abc import Iterator

LENGTHS = [(3 + i, 0) for i in range(8)]
for _bits in range(1, 6):
    for _ in range(4):
        LENGTHS.append((LENGTHS[-1][0] + (1 << LENGTHS[-1][1]), _bits))
LENGTHS.append((258, 0))
DISTANCES = [(1, 0), (2, 0), (3, 0), (4, 0)]
for _bits in range(1, 14):
    for _ in range(2):
        DISTANCES.append((DISTANCES[-1][0] + (1 << DISTANCES[-1][1]), _bits))
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
FIXED = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8

Code = dict[tuple[int, int], int]


class Bits:
    """The bits of `data`, the least significant of each byte first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, count: int) -> int:
        value = 0
        for i in range(count):
            value |= (self.data[self.place >> 3] >> (self.place & 7) & 1) << i
            self.place += 1
        return value

    def symbol(self, code: Code) -> int:
        word = size = 0
        while (size, word) not in code:
            word, size = word << 1 | self.take(1), size + 1
        return code[size, word]


def code_of(sizes: list[int]) -> Code:
    """The canonical Huffman code of those sizes (section 3.2.2)."""
    code: Code = {}
    word = 0
    for size in range(1, 16):
        for symbol, of in enumerate(sizes):
            if of == size:
                code[size, word] = symbol
                word += 1
        word <<= 1
    return code


def codes(bits: Bits) -> tuple[Code, Code]:
    """The two codes of a block that brings its own (section 3.2.7)."""
    literals, distances, count = bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4
    sizes = [0] * 19
    for place in ORDER[:count]:
        sizes[place] = bits.take(3)
    code, found = code_of(sizes), list[int]()
    while len(found) < literals + distances:
        symbol = bits.symbol(code)
        if symbol < 16:
            found.append(symbol)
        elif symbol == 16:
            found += found[-1:] * (3 + bits.take(2))
        else:
            found += [0] * (3 + bits.take(3) if symbol == 17 else 11 + bits.take(7))
    return code_of(found[:literals]), code_of(found[literals:])


def distances(payload: bytes) -> Iterator[int]:
    """Every distance in a payload that ends with an empty stored block, but for its last four bytes."""
    bits = Bits(payload + b"\0\0\xff\xff")
    while bits.place < 8 * len(payload) - 8 + 3:
        bits.take(1)
        kind = bits.take(2)
        if kind == 0:
            bits.place = (bits.place + 7) // 8 * 8
            size = bits.take(16)
            bits.take(16)
            bits.place += 8 * size
            continue
        literals, far = (code_of(FIXED), code_of([5] * 30)) if kind == 1 else codes(bits)
        while (symbol := bits.symbol(literals)) != 256:
            if symbol > 256:
                bits.take(LENGTHS[symbol - 257][1])
                base, more = DISTANCES[bits.symbol(far)]
                yield base + bits.take(more)
