"""What is wrong with each hostile image, and what must be said of it."""

import struct
import zlib
from collections.abc import Callable

from zstandard import ZstdCompressor

from hostile import packed_cases, vhdx_cases
from hostile.case import ENCRYPTED_IMAGE, MISMATCH, UNREADABLE, UNSUPPORTED, Case, case
from hostile.made import (
    COMPRESSED,
    COPIED,
    DATA,
    L1,
    L2,
    MORE,
    SECTOR,
    VDI_BLOCK,
    VMDK_GRAINS,
    C,
    Made,
    extension,
    fixed_vhd,
    make_cowd,
    make_qcow2,
    make_sesparse,
    make_stream,
    make_vdi,
    make_vhd,
    make_vmdk,
    marker,
    of,
    text,
)
from imgconv.ondisk import qcow2, vhd, vmdk, vmdk_esx
from imgconv.units import MiB, TiB


def front(**fields: object) -> Callable[[], Made]:
    return lambda: make_qcow2(front=fields)


def tail(**fields: object) -> Callable[[], Made]:
    return lambda: make_qcow2(tail=fields)


def l1(entry: int) -> Callable[[], Made]:
    return lambda: make_qcow2(l1={0: entry})


def l2(entry: int, more: int = MORE | COPIED) -> Callable[[], Made]:
    return lambda: make_qcow2(l2={0: entry, 2: more})


def backing(name: bytes, kind: bytes = b"") -> Callable[[], Made]:
    more = extension(qcow2.BACKING_FORMAT, kind) if kind else b""
    fields = {"backing_file_offset": 1024, "backing_file_size": len(name)}
    return lambda: make_qcow2(front=fields, extensions=more, pieces={1024: name})


def data_file(name: bytes) -> Callable[[], Made]:
    more = extension(qcow2.DATA_FILE_NAME, name)
    return lambda: make_qcow2(tail={"incompatible_features": qcow2.DATA_FILE}, extensions=more)


def packed(stream: bytes, *, codec: int = 0, sectors: int | None = None) -> Callable[[], Made]:
    bits = 70 - 12
    count = (len(stream) - 1) // SECTOR if sectors is None else sectors
    fields = {"incompatible_features": 8 if codec else 0, "compression_type": codec}
    entry = COMPRESSED | count << bits | DATA
    return lambda: make_qcow2(tail=fields, l2={0: entry}, pieces={DATA: stream.ljust(C, b"\0")})


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)
    return packer.compress(content) + packer.flush()


def snapshot(**fields: int) -> Callable[[], Made]:
    """One snapshot, called s, with a table of its own."""
    found = {"l1_table_offset": L1, "l1_size": 1, **fields}
    entry = struct.pack(
        ">QIHHIIQII", found["l1_table_offset"], found["l1_size"], 1, 1, 0, 0, 0, 0, 16
    )
    entry += struct.pack(">QQ", 0, 4 * C) + b"ss"
    table = {7 * C: entry.ljust(C, b"\0")}
    return lambda: make_qcow2(
        front={"nb_snapshots": 1, "snapshots_offset": 7 * C}, pieces=table
    )


BELOW = "backing file, .*, which is not allowed"
QCOW2 = {
    "CVE-2015-5163 backing file": case(backing(b"/etc/passwd"), BELOW, UNSUPPORTED),
    "backing file by URL": case(backing(b"nbd://10.0.0.1/x"), BELOW, UNSUPPORTED),
    "backing file in JSON": case(
        backing(b'json:{"driver":"file","filename":"/etc/passwd"}'), BELOW, UNSUPPORTED
    ),
    "backing file with an escape": case(
        backing(b"\x1b]0;x\x07\n\xe2\x80\xae"), r"\\x1b\]0;x\\x07\\n\\u202e", UNSUPPORTED
    ),
    "backing file beside, URL": case(
        backing(b"nbd://x"), BELOW, UNSUPPORTED, allowed="same-folder"
    ),
    "backing file is itself": case(
        backing(b"disk.qcow2"), "needs itself", UNSUPPORTED, allowed="same-folder"
    ),
    "backing file not there": case(
        backing(b"gone"), "No such file", UNREADABLE, allowed="same-folder"
    ),
    "backing file not UTF-8": case(
        backing(b"\xff\xfe"), "No such file", UNREADABLE, allowed="same-folder"
    ),
    "backing file with NUL": case(backing(b"a\0b"), BELOW, UNSUPPORTED, allowed="same-folder"),
    "backing file is a FIFO": case(
        backing(b"fifo"), "not a regular file", UNREADABLE, allowed="same-folder"
    ),
    "backing file is a link": case(
        backing(b"link"), "not a regular file", UNREADABLE, allowed="same-folder"
    ),
    "backing format unknown": case(
        backing(b"beside", b"nbd"),
        "to be in format 'nbd'",
        UNSUPPORTED,
        allowed="same-folder",
        beside={"beside": b"x" * C},
    ),
    "backing name too long": case(
        front(backing_file_offset=512, backing_file_size=1024), "name"
    ),
    "backing name outside": case(front(backing_file_offset=C - 1, backing_file_size=9), "name"),
    "CVE-2024-32498 data file": case(
        data_file(b"/etc/passwd"), "its data file, .* not allowed", UNSUPPORTED
    ),
    "CVE-2024-4467 data file in JSON": case(
        data_file(b'json:{"driver":"file","filename":"/etc/passwd"}'), "data file", UNSUPPORTED
    ),
    "data file without a name": case(
        tail(incompatible_features=4), "without a name", UNSUPPORTED
    ),
    "CVE-2014-0144 cluster bits": case(front(cluster_bits=8), "clusters of 2"),
    "cluster bits 32": case(front(cluster_bits=32), "clusters of 2"),
    "CVE-2014-0144 refcount table": case(
        front(refcount_table_clusters=0xFFFFFFFF), "refcount table", UNSUPPORTED
    ),
    "refcount table beyond": case(front(refcount_table_offset=1 << 63), "refcount table"),
    "refcount table unaligned": case(front(refcount_table_offset=C + 8), "begin a cluster"),
    "no refcount table": case(front(refcount_table_clusters=0), "no refcount table"),
    "refcount order": case(tail(refcount_order=200), "refcounts of 2"),
    "CVE-2014-0144 L1 size": case(front(l1_size=0xFFFFFFFF), "L1 table has", UNSUPPORTED),
    "L1 too short": case(front(l1_size=0), "0 L1 entries"),
    "L1 at 2^63": case(front(l1_table_offset=1 << 63), "L1 table"),
    "L1 near 2^64": case(front(l1_table_offset=(1 << 64) - C), "L1 table"),
    "size 2^64": case(front(size=(1 << 64) - 1), "at most", UNSUPPORTED),
    "CVE-2013-2096 size": case(front(size=1 << 60), "at most", UNSUPPORTED),
    "size 0": case(front(size=0), "no size"),
    "version 1": case(front(version=1), "version 1", UNSUPPORTED),
    "version 4": case(front(version=4), "version 4", UNSUPPORTED),
    "AES": case(front(crypt_method=1), "encrypted .AES", ENCRYPTED_IMAGE),
    "LUKS": case(front(crypt_method=2), "encrypted .LUKS", ENCRYPTED_IMAGE),
    "another cipher": case(front(crypt_method=77), "encrypted .method 77", ENCRYPTED_IMAGE),
    "corrupt": case(tail(incompatible_features=2), "marked corrupt", UNSUPPORTED),
    "unknown feature": case(tail(incompatible_features=1 << 63), "not known", UNSUPPORTED),
    "header short": case(tail(header_length=96), "too short"),
    "header long": case(tail(header_length=1 << 31), "longer than a cluster"),
    "compression type": case(tail(header_length=112, compression_type=9), "compression type 9"),
    "type without bit": case(tail(header_length=112, compression_type=1), "do not agree"),
    "extension too long": case(
        lambda: make_qcow2(extensions=struct.pack(">II", 5, 0xFFFFFFF8)), "header extension"
    ),
    "many extensions": case(
        lambda: make_qcow2(extensions=struct.pack(">II", 5, 0) * 300), "more than 64"
    ),
    "data file named twice": case(
        lambda: make_qcow2(extensions=extension(qcow2.DATA_FILE_NAME, b"a") * 2), "twice"
    ),
    "snapshot table unaligned": case(
        front(nb_snapshots=1, snapshots_offset=7), "does not begin a cluster"
    ),
    "CVE-2014-0146 snapshot table beyond": case(
        front(nb_snapshots=1, snapshots_offset=1 << 40), "snapshot", snapshot="s"
    ),
    "CVE-2014-0143 L1 of a snapshot": case(
        snapshot(l1_size=0x7FFFFFFF), "L1 table", UNSUPPORTED, snapshot="s"
    ),
    "CVE-2014-0145 larger L1 of a snapshot": case(
        snapshot(l1_size=6 * C // 8), "L1 table", snapshot="s"
    ),
    "L1 of a snapshot beyond": case(
        snapshot(l1_table_offset=1 << 62), "L1 table", snapshot="s"
    ),
    "snapshots near 2^64": case(front(nb_snapshots=1, snapshots_offset=(1 << 64) - 1), "begin"),
    "L1 entry reserved bits": case(l1(L2 | COPIED | 1), "cannot be"),
    "L2 beyond": case(l1(1 << 50 | COPIED), "cannot be"),
    "L2 unaligned": case(l1(L2 + 512 | COPIED), "cannot be"),
    "L2 in the header": case(l1(1 << 9), "cannot be"),
    "L2 is the L1": case(l1(L1 | COPIED), "two uses"),
    "L2 used twice": case(
        lambda: make_qcow2(
            front={"size": 1024 * C, "l1_size": 2}, l1={0: L2 | COPIED, 1: L2 | COPIED}
        ),
        "used twice",
    ),
    "cluster is its table": case(l2(L2 | COPIED), "two uses"),
    "cluster is the header": case(l2(0 | COPIED | 1 << 9), "begin at a multiple"),
    "cluster is the L1": case(l2(L1 | COPIED), "two uses"),
    "cluster is the refcount block": case(l2(2 * C | COPIED), "two uses"),
    "cluster twice": case(l2(MORE | COPIED), "two uses"),
    "cluster beyond": case(l2(1 << 55 | COPIED), "beyond the end"),
    "cluster unaligned": case(l2(DATA + 512 | COPIED), "multiple"),
    "cluster reserved bits": case(l2(DATA | 1 << 57), "reserved"),
    "zero flag in version 2": case(
        lambda: make_qcow2(front={"version": 2}, l2={0: DATA | COPIED | 1}), "reserved"
    ),
    "subclusters": case(
        lambda: make_qcow2(
            front={
                "cluster_bits": 14,
                "size": 4 * C,
                "l1_table_offset": 4 * C,
                "refcount_table_offset": 8 * C,
            },
            tail={"incompatible_features": 16},
            l1={},
            l2={},
            size=24 * C,
            pieces={
                4 * C: struct.pack(">Q", 12 * C | COPIED),
                8 * C: bytes(8),
                12 * C: struct.pack(">QQ", 16 * C | COPIED, 0x100000001),
            },
        ),
        "both allocated and zero",
    ),
    "bomb of deflate": case(
        lambda: make_qcow2(
            l2=dict.fromkeys(range(4), COMPRESSED | DATA), pieces={DATA: deflated(b"z" * C)}
        ),
        "another cluster has",
    ),
    "streams in one another": case(
        lambda: make_qcow2(
            l2={n: COMPRESSED | DATA + 5 * n for n in range(4)},
            pieces={DATA: b"\0\0\0\xff\xff" * 3 + deflated(b"z" * C)},
        ),
        "compressed data: ends",
    ),
    "deflate broken": case(packed(b"\xff" * 100), "compressed data"),
    "deflate short": case(packed(deflated(b"x")), "ends after 1 of"),
    "deflate beyond": case(l2(COMPRESSED | 1 << 50), "beyond the end"),
    "deflate in the header": case(l2(COMPRESSED), "in the header"),
    "deflate in the L1": case(l2(COMPRESSED | L1), "another use"),
    "zstd broken": case(packed(b"\xff" * 100, codec=1), "compressed data"),
    "zstd bomb": case(
        packed(ZstdCompressor().compress(bytes(64 * MiB)), codec=1), "holds more"
    ),
    "zstd window": case(
        packed(bytes.fromhex("28b52ffd00f8 010000"), codec=1), "compressed data"
    ),
    "truncated in the header": case(lambda: make_qcow2().cut(60), "L1|refcount|header"),
    "truncated in the L1": case(lambda: make_qcow2().cut(L1), "L1 table"),
    "truncated in the L2": case(lambda: make_qcow2().cut(L2 + 8), "cannot be"),
    "truncated before data": case(lambda: make_qcow2().cut(DATA), "beyond the end"),
    "empty": case(lambda: of(b""), "is empty", UNREADABLE),
}

ENCRYPTED = ('encryption.keySafe = "vmware:key/list/(pair/(x))"',)


def header(**fields: object) -> Callable[[], Made]:
    return lambda: make_vmdk(header=fields)


def said(*extents: str, kind: str = "monolithicFlat", **more: object) -> Callable[[], Made]:
    return lambda: of(text(*extents, kind=kind, **more).encode())  # type: ignore[arg-type]


def stream(marked: bytes, **more: object) -> Callable[[], Made]:
    return lambda: make_stream(grains={VMDK_GRAINS: marked}, table={0: 32}, **more)  # type: ignore[arg-type]


def beside(content: bytes) -> dict[str, object]:
    return {"allowed": "same-folder", "beside": {"x.vmdk": content}}


def cowd(**fields: object) -> dict[str, object]:
    return beside(make_cowd(header=fields).content())


COWD_TEXT = said('RW 4096 VMFSSPARSE "x.vmdk"', kind="vmfsSparse")
SESPARSE_TEXT = said('RW 32768 SESPARSE "x.vmdk"', kind="seSparse")
EXTENT = "an extent .*, which is not allowed"
PASSWD = 'RW 8 FLAT "/etc/passwd" 0'
VMDK = {
    "CVE-2022-47951 flat extent": case(said(PASSWD), EXTENT, UNSUPPORTED),
    "flat extent, folder allowed": case(
        said(PASSWD), EXTENT, UNSUPPORTED, allowed="same-folder"
    ),
    "header of no size": case(
        lambda: make_vmdk(header={"capacity": 0}, descriptor=text(PASSWD)), "no size"
    ),
    "extent of a device": case(
        said('RW 8 FLAT "/dev/zero" 0'), EXTENT, UNSUPPORTED, allowed="same-folder"
    ),
    "extent above": case(
        said('RW 8 FLAT "../x" 0'), EXTENT, UNSUPPORTED, allowed="same-folder"
    ),
    "extent in JSON": case(said("RW 8 FLAT \"json:{'driver':'nbd'}\" 0"), EXTENT, UNSUPPORTED),
    "extent by URL": case(said('RW 8 FLAT "nbd://h/x" 0'), EXTENT, UNSUPPORTED),
    "extent is a FIFO": case(
        said('RW 8 FLAT "fifo" 0'), "not a regular file", UNREADABLE, allowed="same-folder"
    ),
    "extent is a link": case(
        said('RW 8 FLAT "link" 0'), "not a regular file", UNREADABLE, allowed="same-folder"
    ),
    "extent is a folder": case(
        said('RW 8 FLAT "folder" 0'), "not a regular file", UNREADABLE, allowed="same-folder"
    ),
    "extent with an escape": case(
        said('RW 8 FLAT "\x1b[2J\u202e" 0'), r"\\x1b\[2J\\u202e", UNSUPPORTED
    ),
    "extent with an escape, opened": case(
        said('RW 8 FLAT "\x1b[2J\r" 0'),
        r"\\x1b\[2J\\r: No such",
        UNREADABLE,
        allowed="same-folder",
    ),
    "extent too short": case(
        said('RW 800 FLAT "x.vmdk" 0'), "are said to be in it", **beside(b"x" * 4096)
    ),
    "extent at 2^63": case(
        said('RW 8 FLAT "x.vmdk" 18014398509481984'), "are said", **beside(b"x" * 4096)
    ),
    "extents overflow": case(
        said(*["RW 999999999999999999 ZERO"] * 40), "at most", UNSUPPORTED
    ),
    "extents of no size": case(said("RW 0 ZERO"), "no size"),
    "CVE-2015-5162 5000 extents": case(said(*["RW 8 ZERO"] * 5000), "more than 4096"),
    "no extents": case(said(), "names no extents"),
    "extent of another kind": case(said('RW 8 VMFSRDM "x"'), "kind VMFSRDM"),
    "extent of no kind": case(said("RW 8"), "an extent"),
    "sparse extent twice": case(
        said('RW 32 SPARSE "x.vmdk"', 'RW 32 SPARSE "x.vmdk"', kind="twoGbMaxExtentSparse"),
        "is two extents",
        **beside(make_vmdk().content()),
    ),
    "no access": case(said('NOACCESS 8 FLAT "x" 0'), "may not be accessed", UNSUPPORTED),
    "host device": case(said(PASSWD, kind="fullDevice"), "fullDevice", UNSUPPORTED),
    "type with an escape": case(said(kind="\x1b[1m"), r"\\x1b", UNSUPPORTED),
    "type said twice": case(said(more=('createType="vmfs"',)), "twice"),
    "no type": case(lambda: of(b"# Disk DescriptorFile\n"), "no createType"),
    "encrypted": case(said("RW 8 ZERO", more=ENCRYPTED), "encrypted", ENCRYPTED_IMAGE),
    "parent": case(
        said("RW 8 ZERO", parent="12345678", more=('parentFileNameHint="/etc/passwd"',)),
        "its parent, '/etc/passwd', which is not allowed",
        UNSUPPORTED,
    ),
    "parent without id": case(
        said("RW 8 ZERO", more=('parentFileNameHint="x"',)), "its parent", UNSUPPORTED
    ),
    "parent is itself": case(
        said("RW 8 ZERO", parent="12345678", more=('parentFileNameHint="disk.vmdk"',)),
        "needs itself",
        UNSUPPORTED,
        allowed="same-folder",
    ),
    "parent not there, extents open": case(
        said('RW 8 FLAT "x.vmdk" 0', parent="1", more=('parentFileNameHint="gone"',)),
        "gone: No such file",
        UNREADABLE,
        **beside(b"x" * 4096),
    ),
    "parent is another": case(
        said("RW 8 ZERO", parent="99999999", more=('parentFileNameHint="x.vmdk"',)),
        "content id 99999999",
        **beside(text("RW 8 ZERO").encode()),
    ),
    "parent bad id": case(said("RW 8 ZERO", parent="zz"), "content id"),
    "grain 0": case(header(grain_size=0), "grains of 0"),
    "grain 3": case(header(grain_size=3), "grains of"),
    "grain 2^63": case(header(grain_size=1 << 63), "grains of"),
    "no entries": case(header(table_entries=0), "tables of 0"),
    "entries odd": case(header(table_entries=3), "tables of 3"),
    "entries 2^31": case(header(table_entries=1 << 31), "tables of"),
    "capacity 2^64": case(header(capacity=(1 << 64) - 1), "at most", UNSUPPORTED),
    "many tables": case(header(capacity=(64 * TiB) // 512, table_entries=1), "grain tables"),
    "version 9": case(header(version=9), "version 9", UNSUPPORTED),
    "flags": case(header(flags=1 << 30), "flags not known", UNSUPPORTED),
    "markers alone": case(header(flags=1 << 17), "go together"),
    "text mode": case(header(newline_test=b"\n \n\n"), "line ends"),
    "bzip2": case(header(compression=2), "compression 2"),
    "descriptor beyond": case(header(descriptor_offset=1 << 55), "descriptor"),
    "descriptor at 2^64": case(header(descriptor_offset=(1 << 64) - 1), "descriptor"),
    "no descriptor": case(header(descriptor_offset=0), "part of a disk", UNSUPPORTED),
    "directory beyond": case(header(directory_offset=1 << 55), "grain directory"),
    "directory at 2^63": case(header(directory_offset=1 << 63), "grain directory"),
    "directory at the end": case(header(directory_offset=(1 << 64) - 1), "no stream"),
    "directory nowhere": case(header(directory_offset=0), "no grain directory"),
    "directory in the header": case(
        lambda: make_vmdk(header={"directory_offset": 1}), "beyond|two uses"
    ),
    "table beyond": case(lambda: make_vmdk(directory={0: 1 << 31}), "grain table"),
    "table is the directory": case(lambda: make_vmdk(directory={0: 21}), "two uses"),
    "table shared": case(
        lambda: make_vmdk(header={"capacity": 8192}, directory={0: 22, 1: 22}), "two uses"
    ),
    "grain beyond": case(lambda: make_vmdk(table={0: 1 << 31}), "a grain"),
    "grain is the header": case(lambda: make_vmdk(table={0: 1}), "two uses"),
    "grain is its table": case(lambda: make_vmdk(table={0: 22}), "two uses"),
    "grain twice": case(lambda: make_vmdk(table={0: 32, 1: 32}), "two uses"),
    "grains overlap": case(lambda: make_vmdk(table={0: 32, 1: 36}), "two uses"),
    "grain of another place": case(stream(marker(8, zlib.compress(b"x" * C))), "sector 8"),
    "grain without end": case(
        stream(marker(0, zlib.compress(b"x" * C), 1 << 31)), "marker tells of"
    ),
    "grain of nothing": case(stream(marker(0, b"", 0)), "marker tells of"),
    "grain bomb": case(stream(marker(0, zlib.compress(bytes(MiB)))), "compressed data"),
    "grain broken": case(stream(marker(0, b"\xff" * 50)), "compressed data"),
    "grain checksum": case(
        stream(marker(0, zlib.compress(b"x" * C)[:-1] + b"!")), "compressed"
    ),
    "streams overlap": case(lambda: make_stream(table={0: 32, 1: 32}), "two uses"),
    "no footer": case(stream(b"", header={"directory_offset": (1 << 64) - 1}), "no footer"),
    "footer without end": case(
        lambda: make_stream(
            header={"directory_offset": (1 << 64) - 1},
            pieces={
                64 * SECTOR: vmdk.MetadataMarker(1, 0, 3, bytes(496)).pack()
                + make_stream(header={"directory_offset": (1 << 64) - 1}).pieces[0]
                + bytes(SECTOR)
            },
        ),
        "does not say where",
    ),
    "COWD alone": case(lambda: make_cowd(), "a COWD extent", UNSUPPORTED),
    "COWD version": case(COWD_TEXT, "version 7", **cowd(version=7)),
    "COWD of no size": case(COWD_TEXT, "no size", **cowd(capacity=0)),
    "COWD grain": case(COWD_TEXT, "grains of", **cowd(grain_size=1 << 31)),
    "COWD directory": case(COWD_TEXT, "grain directory", **cowd(directory_offset=1 << 31)),
    "COWD tables": case(COWD_TEXT, "0 grain tables", **cowd(directory_entries=0)),
    "COWD grain is a table": case(
        COWD_TEXT, "two uses", **beside(make_cowd(table={0: 5}).content())
    ),
    "SESPARSE alone": case(lambda: make_sesparse(), "a SESPARSE extent", UNSUPPORTED),
    "SESPARSE journal": case(
        SESPARSE_TEXT,
        "journal was not replayed",
        UNSUPPORTED,
        **beside(
            make_sesparse(volatile=(vmdk_esx.SeSparseVolatileHeader.MAGIC, 0, 0, 1)).content()
        ),
    ),
    "SESPARSE journal beyond": case(
        SESPARSE_TEXT, "volatile", **beside(make_sesparse({10: 1 << 60}).content())
    ),
    "SESPARSE type": case(
        SESPARSE_TEXT, "unknown type", **beside(make_sesparse(table={0: 9 << 60}).content())
    ),
    "SESPARSE grain beyond": case(
        SESPARSE_TEXT,
        "outside the place",
        **beside(make_sesparse(table={0: (3 << 60) + (1 << 40)}).content()),
    ),
    "SESPARSE table beyond": case(
        SESPARSE_TEXT,
        "outside the place",
        **beside(make_sesparse(directory={0: 0x10000000FFFFFFFF}).content()),
    ),
    "SESPARSE directory entry": case(
        SESPARSE_TEXT, "no entry", **beside(make_sesparse(directory={0: 5}).content())
    ),
    "SESPARSE tables at 2^60": case(
        SESPARSE_TEXT, "not in the file", **beside(make_sesparse({18: 1 << 60}).content())
    ),
    "truncated in the descriptor": case(
        lambda: make_vmdk().cut(700), "createType|descriptor|directory"
    ),
    "truncated in the table": case(lambda: make_vmdk().cut(22 * SECTOR), "grain table"),
    "truncated in the grains": case(lambda: make_vmdk().cut(33 * SECTOR), "a grain"),
}

U = vhd.UNALLOCATED
VHD = {
    "differencing": case(
        lambda: make_vhd(footer={"disk_type": 4}), "needs its parent", UNSUPPORTED
    ),
    "no type": case(lambda: make_vhd(footer={"disk_type": 9}), "no type 9"),
    "checksum": case(lambda: make_vhd(seal=False), "checksum"),
    "CVE-2014-0142 block 0": case(lambda: make_vhd(header={"block_size": 0}), "blocks of 0"),
    "block 2^31": case(lambda: make_vhd(header={"block_size": 1 << 31}), "blocks of"),
    "block odd": case(lambda: make_vhd(header={"block_size": 3 << 16}), "blocks of"),
    "CVE-2014-0144 table short": case(
        lambda: make_vhd(header={"max_table_entries": 1}), "1 blocks, but"
    ),
    "table at 2^63": case(lambda: make_vhd(header={"table_offset": 1 << 63}), "block table"),
    "table unaligned": case(
        lambda: make_vhd(header={"table_offset": 1537}), "begin at a sector"
    ),
    "header at 2^63": case(lambda: make_vhd(footer={"data_offset": 1 << 63}), "the header"),
    "header unaligned": case(
        lambda: make_vhd(footer={"data_offset": 513}), "begin at a sector"
    ),
    "header is the footer": case(lambda: make_vhd(footer={"data_offset": 0}), "no header"),
    "size 2^64": case(
        lambda: make_vhd(footer={"current_size": (1 << 64) - 512}), "at most", UNSUPPORTED
    ),
    "size 0": case(lambda: make_vhd(footer={"current_size": 0}), "no size"),
    "size beyond the table": case(lambda: make_vhd(footer={"current_size": TiB}), "3 blocks"),
    "block is the footer": case(lambda: make_vhd(table=(0, U, U)), "on the metadata"),
    "block is the table": case(lambda: make_vhd(table=(3, U, U)), "on the metadata"),
    "block twice": case(lambda: make_vhd(table=(4, 4, U)), "two blocks"),
    "blocks overlap": case(lambda: make_vhd(table=(4, U, 5)), "two blocks"),
    "block beyond": case(lambda: make_vhd(table=(0xFFFFFFFE, U, U)), "a block"),
    "block on the last footer": case(lambda: make_vhd(table=(4, 6, U)), "two blocks|metadata"),
    "fixed beyond": case(
        lambda: fixed_vhd(b"x" * 4096, {"current_size": TiB}), "but the file has"
    ),
    "truncated": case(lambda: make_vhd().cut(4096), "a block"),
    "truncated in the header": case(lambda: make_vhd().cut(700), "header"),
    "a footer's front": case(lambda: make_vhd().cut(100), "the header"),
}

VDI = {
    "CVE-2014-0144 block 0": case(lambda: make_vdi({"block_size": 0}), "blocks of 0"),
    "block odd": case(lambda: make_vdi({"block_size": 3 << 17}), "blocks of"),
    "block 2^31": case(lambda: make_vdi({"block_size": 1 << 31}), "blocks of"),
    "extra odd": case(lambda: make_vdi({"block_extra": 7}), "begin at sectors"),
    "extra huge": case(lambda: make_vdi({"block_extra": 0xFFFFFE00}), "bytes before"),
    "index overflows": case(
        lambda: make_vdi(
            {"block_size": 128 * MiB, "disk_size": 3 * 128 * MiB, "block_extra": 128 * MiB},
            table=(0xFFFFFFFD, 0xFFFFFFFF, 0xFFFFFFFF),
        ),
        "a block would be at",
    ),
    "version 0.1": case(lambda: make_vdi({"version": 1}), "version 0.1", UNSUPPORTED),
    "differencing": case(lambda: make_vdi({"image_type": 4}), "needs its parent", UNSUPPORTED),
    "parent": case(lambda: make_vdi({"parent_id": b"p" * 16}), "needs its parent", UNSUPPORTED),
    "type 9": case(lambda: make_vdi({"image_type": 9}), "no type 9"),
    "header short": case(lambda: make_vdi({"header_size": 4}), "too short"),
    "sectors": case(lambda: make_vdi({"sector_size": 0}), "not of 512"),
    "size 0": case(lambda: make_vdi({"disk_size": 0}), "no size"),
    "size 2^64": case(
        lambda: make_vdi({"disk_size": (1 << 64) - 1}), "blocks, but the disk has"
    ),
    "map in the header": case(lambda: make_vdi({"map_offset": 0}), "in the header"),
    "map beyond": case(
        lambda: make_vdi({"map_offset": 1 << 30, "data_offset": (1 << 30) + 512}), "block map"
    ),
    "data in the map": case(lambda: make_vdi({"data_offset": 516}), "before the map ends"),
    "data beyond": case(
        lambda: make_vdi({"data_offset": 0xFFFFFE00}), "a block|the last block"
    ),
    "block twice": case(lambda: make_vdi(table=(1, 1, 0)), "two blocks"),
    "block beyond": case(lambda: make_vdi(table=(9, 0, 1)), "a block"),
    "truncated in the map": case(lambda: make_vdi().cut(512), "block map"),
    "truncated in a block": case(lambda: make_vdi().cut(1024 + VDI_BLOCK + 512), "a block"),
    "truncated in the header": case(lambda: make_vdi().cut(300), "header|sector|blocks"),
}

FOOTER = make_vhd().pieces[0]
RAW = b"x" * MiB
HOST_FILE = backing(b"/etc/passwd")
PROBED = {
    "CVE-2013-1922 raw with a header": case(
        HOST_FILE, "looks like qcow2 but is named like raw", MISMATCH, name="d.raw"
    ),
    "CVE-2014-0134 raw with a header, no name": case(HOST_FILE, BELOW, UNSUPPORTED, name="d"),
    "CVE-2026-24708 raw with a header, declared": case(
        HOST_FILE, BELOW, UNSUPPORTED, format="qcow2", name="d"
    ),
    "CVE-2024-44082 another format than it is named": case(
        said(PASSWD), "looks like vmdk but is named like qcow2", MISMATCH
    ),
    "CVE-2014-0147 Bochs": case(
        lambda: of(b"Bochs Virtual HD Image".ljust(64, b"\0") + b"\xff" * 448),
        "looks like bochs",
        MISMATCH,
        name="d",
    ),
    "CVE-2014-0142 Parallels, no tracks": case(
        lambda: of(b"WithoutFreeSpace".ljust(64, b"\0")), "parallels", MISMATCH, name="d"
    ),
    "CVE-2014-0143 Parallels, endless catalog": case(
        lambda: of(b"WithouFreSpacExt".ljust(32, b"\0") + b"\xff" * 32),
        "parallels",
        MISMATCH,
        name="d",
    ),
    "CVE-2014-0222 QCOW 1, L2 tables of 2^255": case(
        lambda: of(struct.pack(">4sIQIIQBB", b"QFI\xfb", 1, 0, 0, 0, 1 << 30, 12, 255)),
        "version 1",
        UNSUPPORTED,
        name="d",
    ),
    "CVE-2014-0223 QCOW 1, size 2^64": case(
        lambda: of(struct.pack(">4sIQIIQBB", b"QFI\xfb", 1, 0, 0, 0, (1 << 64) - 1, 12, 9)),
        "version 1",
        UNSUPPORTED,
        name="d",
    ),
    "CVE-2008-2004 raw that looks like qcow2": case(
        lambda: make_qcow2(), "looks like qcow2 but is named like raw", MISMATCH, name="d.raw"
    ),
    "CVE-2024-40767 raw that looks like VMDK": case(
        said(PASSWD), "looks like vmdk but is named like raw", MISMATCH, name="d.img"
    ),
    "declared qcow2, is VMDK": case(
        lambda: make_vmdk(),
        "looks like vmdk, but qcow2 was said",
        MISMATCH,
        format="qcow2",
        name="d",
    ),
    "declared VHD, is raw": case(lambda: of(RAW), "no footer", format="vhd", name="d"),
    "declared qcow2, is raw": case(lambda: of(RAW), "no signature", format="qcow2", name="d"),
    "declared VMDK, is raw": case(lambda: of(RAW), "neither", format="vmdk", name="d"),
    "declared VDI, is raw": case(lambda: of(RAW), "no signature", format="vdi", name="d"),
    "qcow2 and VHD": case(
        lambda: make_qcow2().over({7 * C: FOOTER}), "looks like qcow2 and vhd", MISMATCH
    ),
    "VMDK and VHD": case(
        lambda: make_vmdk().over({64 * SECTOR: FOOTER}),
        "looks like vhd and vmdk",
        MISMATCH,
        name="d.vmdk",
    ),
    "qcow2 and VDI": case(
        lambda: make_qcow2().over({0x40: b"\x7f\x10\xda\xbe"}), "qcow2 and vdi", MISMATCH
    ),
    "named qcow2, is VDI": case(lambda: make_vdi(), "looks like vdi but is named", MISMATCH),
    "named qcow2, is raw": case(lambda: of(RAW), "its content is not", MISMATCH),
    "LUKS": case(
        lambda: of(b"LUKS\xba\xbe\0\1".ljust(4096)),
        "encrypted .LUKS",
        ENCRYPTED_IMAGE,
        name="d",
    ),
    "QED": case(lambda: of(b"QED\0".ljust(4096)), "qed", MISMATCH, name="d"),
    "DMG": case(
        lambda: of(RAW + b"koly\0\0\0\x04\0\0\x02\0".ljust(512)), "dmg", MISMATCH, name="d"
    ),
}

FAMILIES: dict[str, dict[str, Case]] = {
    "qcow2": QCOW2,
    "vmdk": VMDK,
    "vhd": VHD,
    "vdi": VDI,
    "vhdx": vhdx_cases.VHDX,
    **packed_cases.FAMILIES,
    "probed": PROBED,
}
