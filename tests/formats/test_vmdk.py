"""VMDK facts: header shapes, descriptor, what sequential readers need."""

import random
import re
import struct

import pytest
from support import engine

import imgconv
from imgconv.errors import OutputTooLarge
from imgconv.formats.base import Disk, PlannedWriter
from imgconv.formats.vmdk_stream import StreamWriter
from imgconv.identity import Identity
from imgconv.ranges import Ranges
from imgconv.units import SECTOR, GiB, MiB, TiB

STREAM = imgconv.Vmdk(subformat="streamOptimized")


def descriptor(options: imgconv.Vmdk, name: str = "disk.vmdk") -> str:
    source = engine.MemorySource(b"\x01" * (5 * MiB))
    layout_name = engine.writer_for(source, options, name)
    sink = engine.MemorySink()
    from imgconv.pipeline import stream
    from imgconv.tally import Tally
    from imgconv.workers import Stop

    sink.commit(stream(source, layout_name, sink, threads=1, stop=Stop(), tally=Tally()))
    return sink.content()[512 : 21 * 512].rstrip(b"\0").decode()


def test_the_front_of_a_sparse_file_is_where_qemu_puts_it() -> None:
    """A 5 GiB disk: redundant directory at sector 21, directory at 663, grains at 1408."""
    writer = imgconv.Vmdk().writer(Disk(5 * GiB, Identity("x"), "x.vmdk"))
    head = b"".join(
        s.render() if hasattr(s, "render") else bytes(s.length)
        for part in writer.head()
        for s in part
    )
    assert struct.unpack_from("<QQQ", head, 48) == (21, 663, 1408)
    assert struct.unpack_from("<4sIIQQQQI", head) == (b"KDMV", 1, 3, 10485760, 128, 1, 20, 512)
    assert len(head) == writer.head_size == 1408 * SECTOR


def test_a_stream_says_from_the_start_that_its_directory_is_at_the_end() -> None:
    image = engine.one_pass(engine.MemorySource(b"\x01" * MiB), STREAM)
    version, flags = struct.unpack_from("<II", image, 4)
    assert (version, flags) == (3, 0x30001)
    assert struct.unpack_from("<QQ", image, 48) == (0, 0xFFFFFFFFFFFFFFFF)
    footer = image[-1024:-512]
    assert footer[:56] == image[:56]
    assert footer[64:] == image[64:512]
    assert not any(image[-512:])


@pytest.mark.parametrize("level", range(1, 10))
def test_incompressible_grains_fit_what_readers_reserve(level: int) -> None:
    """Marker and data of a grain must not exceed 129 sectors."""
    grain = random.Random(1).randbytes(65536)
    writer = StreamWriter(MiB, b"", level)
    assert len(writer.encode(0, memoryview(grain))) <= 129 * SECTOR


def test_the_descriptor_names_the_output_and_nothing_else() -> None:
    text = descriptor(imgconv.Vmdk())
    assert 'RW 10240 SPARSE "disk.vmdk"' in text
    assert 'ddb.adapterType = "lsilogic"' in text
    cid = re.search(r"^CID=([0-9a-f]{8})$", text, re.MULTILINE)
    content = re.search(r'longContentID = "([0-9a-f]{32})"', text)
    assert cid is not None
    assert content is not None
    assert content[1].endswith(cid[1])
    assert "/" not in text.replace("# Disk", "")


@pytest.mark.parametrize(
    ("adapter", "geometry"), [("ide", ("11", "16", "63")), ("lsilogic", ("1", "255", "63"))]
)
def test_geometry_follows_the_adapter(adapter: str, geometry: tuple[str, ...]) -> None:
    text = descriptor(imgconv.Vmdk(adapter_type=adapter))
    found = re.findall(r'ddb.geometry.\w+ = "(\d+)"', text)
    assert tuple(found) == geometry


@pytest.mark.parametrize(
    "name",
    ['a"b.vmdk', "a\nb.vmdk", "x" * 256, "C:x.vmdk", "dïsk.vmdk", " x.vmdk", "\udcff.vmdk"],
)
def test_a_name_that_would_break_the_extent_line_is_not_copied(name: str) -> None:
    assert 'SPARSE "disk.vmdk"' in descriptor(imgconv.Vmdk(), name)


def test_the_extent_name_is_an_option() -> None:
    assert 'SPARSE "other.vmdk"' in descriptor(imgconv.Vmdk(extent_name="other.vmdk"))


def test_limits() -> None:
    assert imgconv.Vmdk().max_size == 2 * TiB - SECTOR
    assert STREAM.max_size == 62 * TiB


def test_grains_past_2_tib_of_file_are_refused() -> None:
    """A disk just below 2 TiB fits only while it is sparse: tables take their share."""
    writer = imgconv.Vmdk().writer(Disk(2 * TiB - SECTOR, Identity("x"), "x"))
    assert isinstance(writer, PlannedWriter)
    step = 64 * GiB
    for start in range(0, 2 * TiB - step, step):
        writer.place(Ranges.single(start, start + step))
    with pytest.raises(OutputTooLarge, match="2 TiB"):
        writer.place(Ranges.single(2 * TiB - step, 2 * TiB - SECTOR))
