"""Write generated/crc_tables.h: every constant of the CRCs, computed from
their polynomials.

Polynomials are integers here, bit i being the coefficient of x^i; `reflect` turns
them into the bit order the C code works in.
"""

from pathlib import Path

# Name, width, polynomial without its top term, in the order of the enum in crc.h.
CRCS = (
    ("CRC-32", 32, 0x04C11DB7),
    ("CRC-32C", 32, 0x1EDC6F41),
    ("CRC-64/XZ", 64, 0x42F0E1EBA9EA3693),
    ("CRC-64/NVME", 64, 0xAD93D23594C93659),
)
# Distances in bits.  Descending: a wide register narrows by several, loaded as they stand.
FOLDS = (2048, 1536, 1024, 768, 512, 384, 256, 128, 64)


def reflect(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)


def times_x(value: int, width: int, polynomial: int) -> int:
    value <<= 1
    return value ^ (polynomial | 1 << width) if value >> width else value


def power_of_x(exponent: int, width: int, polynomial: int) -> int:
    """x^exponent mod P."""
    value = 1
    for _ in range(exponent):
        value = times_x(value, width, polynomial)
    return value


def multiply(a: int, b: int, width: int, polynomial: int) -> int:
    product = 0
    for i in range(width):
        if b >> i & 1:
            product ^= a
        a = times_x(a, width, polynomial)
    return product


def slices(width: int, polynomial: int) -> list[list[int]]:
    """Eight tables: table k moves a byte's contribution on by k more bytes."""
    reflected = reflect(polynomial, width)
    first = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ reflected if byte & 1 else byte >> 1
        first.append(byte)
    tables = [first]
    for _ in range(7):
        tables.append([first[v & 0xFF] ^ v >> 8 for v in tables[-1]])
    return tables


def byte_powers(width: int, polynomial: int) -> list[int]:
    """x^(8 * 2^i) for i in 0..63: what 2^i zero bytes multiply a register by."""
    value, powers = power_of_x(8, width, polynomial), []
    for _ in range(64):
        powers.append(reflect(value, width))
        value = multiply(value, value, width, polynomial)
    return powers


def fold_powers(width: int, polynomial: int) -> list[list[int]]:
    """Per distance N the pair x^(N+63), x^(N-1), left-aligned in 64 bits."""
    return [
        [
            reflect(power_of_x(n, width, polynomial), width) << 64 - width
            for n in (distance + 63, distance - 1)
        ]
        for distance in FOLDS
    ]


def barrett(polynomial: int) -> list[int]:
    """floor(x^128 / P) and P for a P of degree 64, both without the coefficient of x^0."""
    whole, rest, quotient = polynomial | 1 << 64, 1 << 128, 0
    for shift in range(64, -1, -1):
        if rest >> (64 + shift) & 1:
            rest ^= whole << shift
            quotient |= 1 << shift
    return [reflect(quotient >> 1, 64), reflect(whole >> 1, 64)]


def literal(value: object) -> str:
    if isinstance(value, int):
        return f"0x{value:x}u" if value < 1 << 32 else f"UINT64_C(0x{value:x})"
    assert isinstance(value, list)
    return "{" + ",".join(map(literal, value)) + "}"


def header() -> str:
    columns = [(width, polynomial) for _, width, polynomial in CRCS]
    enum = ", ".join(f"IC_FOLD_{distance}" for distance in FOLDS)
    return "\n".join(
        [
            "/* Made by make_crc_tables.py; not kept in version control. */",
            "#ifndef IMGCONV_CRC_TABLES_H",
            "#define IMGCONV_CRC_TABLES_H",
            "#include <stdint.h>",
            f"enum {{ {enum} }};",
            "static const uint64_t ic_crc_polynomial[4] = "
            + literal([reflect(p, w) for w, p in columns])
            + ";",
            "static const uint64_t ic_crc_slices[4][8][256] = "
            + literal([slices(*c) for c in columns])
            + ";",
            "static const uint64_t ic_crc_byte_powers[4][64] = "
            + literal([byte_powers(*c) for c in columns])
            + ";",
            f"static const uint64_t ic_crc_fold_powers[4][{len(FOLDS)}][2] = "
            + literal([fold_powers(*c) for c in columns])
            + ";",
            "static const uint64_t ic_crc64_barrett[2][2] = "
            + literal([barrett(p) for w, p in columns if w == 64])
            + ";",
            "#endif",
            "",
        ]
    )


def write(folder: Path) -> None:
    """Write the header into `folder` unless it stands there already."""
    target, text = folder / "crc_tables.h", header()
    folder.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


if __name__ == "__main__":
    write(Path(__file__).parent / "generated")
