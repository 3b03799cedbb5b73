"""Records give back the bytes they read, on headers that QEMU made."""

import struct
from pathlib import Path

import pytest
from support.peers import assert_qemu_img

from imgconv.ondisk import qcow2, vdi, vhd, vhdx, vmdk
from imgconv.ondisk.record import Record


def made_by_qemu(folder: Path, *arguments: str) -> bytes:
    path = folder / "image"
    assert_qemu_img("create", "-f", *arguments, path, "5G")
    with open(path, "rb") as file:
        return file.read(4 << 20)


@pytest.mark.parametrize(
    ("arguments", "record", "offset"),
    [
        (("vpc",), vhd.Footer, 0),
        (("vpc",), vhd.DynamicHeader, 512),
        (("vdi",), vdi.Header, 0),
        (("vhdx",), vhdx.FileIdentifier, 0),
        (("vhdx",), vhdx.Header, 128 << 10),
        (("vhdx",), vhdx.RegionTable, 192 << 10),
        (("vhdx",), vhdx.Region, (192 << 10) + 16),
        (("vhdx",), vhdx.MetadataTable, 3 << 20),
        (("vhdx",), vhdx.Item, (3 << 20) + 32),
        (("qcow2",), qcow2.HeaderV2, 0),
        (("qcow2",), qcow2.HeaderV3Tail, 72),
        (("vmdk",), vmdk.SparseHeader, 0),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_unpack_and_pack_are_inverse(
    tmp_path: Path, arguments: tuple[str, ...], record: type[Record], offset: int
) -> None:
    raw = made_by_qemu(tmp_path, *arguments)[offset : offset + record.LAYOUT.size]
    assert record.unpack(raw).pack() == raw


def test_fields_stand_where_qemu_puts_them(tmp_path: Path) -> None:
    footer = vhd.Footer.unpack(made_by_qemu(tmp_path, "vpc"))
    assert (footer.cookie, footer.features, footer.version) == (b"conectix", 2, 0x10000)
    assert (footer.creator_application, footer.disk_type) == (b"qemu", 3)
    assert footer.sealed() == footer
    header = vhd.DynamicHeader.unpack(made_by_qemu(tmp_path, "vpc")[512:])
    assert (header.cookie, header.table_offset, header.block_size) == (
        b"cxsparse",
        1536,
        2 << 20,
    )
    assert header.sealed() == header
    made = made_by_qemu(tmp_path, "vhdx")
    first, second = (vhdx.Header.unpack(made[at:]) for at in vhdx.HEADERS_AT)
    assert (first.sealed(), second.sealed()) == (first, second)
    assert second.sequence == first.sequence + 1
    table = made[192 << 10 : 256 << 10]
    assert vhdx.RegionTable.unpack(table).checksum == vhdx.checksum(table)
    assert vhdx.Region.unpack(table[16:]).kind == vhdx.TABLE_REGION
    disk = vdi.Header.unpack(made_by_qemu(tmp_path, "vdi"))
    assert (disk.signature, disk.version, disk.blocks) == (0xBEDA107F, 0x10001, 5120)
    assert (disk.disk_size, disk.block_size, disk.sector_size) == (5 << 30, 1 << 20, 512)
    extent = vmdk.SparseHeader.unpack(made_by_qemu(tmp_path, "vmdk"))
    assert (extent.magic, extent.capacity, extent.overhead) == (b"KDMV", 10485760, 1408)
    assert extent.newline_test == vmdk.NEWLINE_TEST


@pytest.mark.parametrize("record", [vhd.Footer, vdi.Header, qcow2.HeaderV2, vmdk.SparseHeader])
def test_too_little_is_an_error(record: type[Record]) -> None:
    with pytest.raises(struct.error):
        record.unpack(bytes(record.LAYOUT.size - 1))
