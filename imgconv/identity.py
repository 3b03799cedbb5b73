"""Who a disk is: the one origin of every UUID, content id and timestamp in an output.

Formats want unique ids, and determinism forbids the clock and chance. Both are served
by hashing a text that names the disk: another disk has another text, and the same
disk has the same one tomorrow.
"""

from typing import NamedTuple


class Identity(NamedTuple):
    """A disk's name for the purpose of ids.

    `timestamp` is in seconds since 1970 and goes into formats that record one; an
    identity given by the user carries 0.
    """

    text: str
    timestamp: int = 0

    def _digest(self, purpose: str) -> bytes:
        import hashlib  # takes milliseconds, and raw and qcow2 have no ids

        name = f"imgconv\0{purpose}\0{self.text}"
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()

    def uuid(self, purpose: str) -> bytes:
        """Return 16 bytes in RFC 9562 order: version 8 (custom), variant 1.

        `purpose` tells apart the ids one disk needs ("vdi image", "vhd").
        """
        raw = bytearray(self._digest(purpose)[:16])
        raw[6] = raw[6] & 0x0F | 0x80
        raw[8] = raw[8] & 0x3F | 0x80
        return bytes(raw)

    def content_id(self, purpose: str) -> int:
        """Return 32 bits, never one of the two highest, which VMDK reserves."""
        return int.from_bytes(self._digest(purpose)[:8], "big") % 0xFFFFFFFE
