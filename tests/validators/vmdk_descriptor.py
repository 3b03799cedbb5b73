"""Rules of the text descriptor that is embedded in a VMDK."""

from __future__ import annotations

import re

from .common import SECTOR, Findings, ceil_div

_MAX_LINES = 1100
_HEADER_KEYS = {"version", "encoding", "CID", "parentCID", "isNativeSnapshot", "createType"}
_SECTIONS = ("# Disk DescriptorFile", "# Extent description", "# The Disk Data Base", "#DDB")
_ACCESS = ("RW ", "RDONLY ", "NOACCESS ")
_EXTENT = re.compile(r'RW ([1-9][0-9]*) SPARSE "([^"]*)"')
_DDB_LINE = re.compile(r'(ddb\.[A-Za-z.]+) = "([^"]*)"')
_NUMBER = r"0|[1-9][0-9]*"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NULL_UUID = r"00000000-0000-0000-0000-000000000000"
_NOT_NULL_UUID = rf"(?!{_NULL_UUID}){_UUID}"

_DDB_VALUES = {
    "ddb.adapterType": "ide|buslogic|lsilogic|legacyESX",
    "ddb.geometry.cylinders": _NUMBER,
    "ddb.geometry.heads": _NUMBER,
    "ddb.geometry.sectors": _NUMBER,
    "ddb.virtualHWVersion": r"[4-9]|[1-9][0-9]",
    "ddb.toolsVersion": _NUMBER,
    "ddb.toolsInstallType": _NUMBER,
    "ddb.longContentID": r"[0-9a-f]{32}",
    "ddb.thinProvisioned": "[01]",
    "ddb.encoding": "UTF-8|windows-1252",
    "ddb.uuid": r"([0-9a-f]{2} ){7}[0-9a-f]{2}-([0-9a-f]{2} ){7}[0-9a-f]{2}",
    "ddb.uuid.image": _NOT_NULL_UUID,
    "ddb.uuid.modification": _NOT_NULL_UUID,
    "ddb.uuid.parent": _NULL_UUID,
    "ddb.uuid.parentmodification": _NULL_UUID,
}
_NEEDED_DDB = (
    "ddb.adapterType",
    "ddb.geometry.cylinders",
    "ddb.geometry.heads",
    "ddb.geometry.sectors",
    "ddb.virtualHWVersion",
    "ddb.toolsVersion",
    "ddb.longContentID",
)


def check_descriptor(raw: bytes, findings: Findings, capacity: int, create_type: str) -> None:
    """4.4: the text is what qemu, VMware, VirtualBox and OpenStack all understand."""
    text, _, rest = raw.partition(b"\0")
    findings.check(
        len(text) < len(raw), f"the descriptor at {SECTOR} has no NUL in its 20 sectors (qemu)"
    )
    findings.check(not any(rest), f"the descriptor at {SECTOR} has bytes after its NUL")
    if not findings.check(
        text.isascii(), f"the descriptor at {SECTOR} is not ASCII (OpenStack refuses it)"
    ):
        return
    lines = _lines(text.decode("ascii"), findings)
    _check_sections(lines, findings)
    header, extents, ddb = _sort(lines, findings)
    _check_header(header, findings, create_type)
    _check_extents(extents, findings, capacity)
    _check_ddb(ddb, findings, header.get("CID", ""))
    _check_geometry(ddb, findings, capacity)


def _lines(text: str, findings: Findings) -> list[str]:
    """Lines end with LF; VirtualBox takes at most 1100."""
    findings.check("\r" not in text, "the descriptor has carriage returns")
    findings.check(text.endswith("\n"), "the last line of the descriptor has no line feed")
    lines = text.split("\n")
    findings.check(
        len(lines) <= _MAX_LINES, f"the descriptor has {len(lines)} lines (VirtualBox: 1100)"
    )
    for number, line in enumerate(lines):
        findings.check(
            line.isprintable() and line == line.strip(),
            f"descriptor line {number} has blanks at its ends or controls: {line!r}",
        )
    return lines


def _check_sections(lines: list[str], findings: Findings) -> None:
    """VirtualBox: the first line, and the three sections in their order."""
    findings.check(
        lines[0] == _SECTIONS[0],
        f"the descriptor begins with {lines[0]!r}, not {_SECTIONS[0]!r}",
    )
    for section in _SECTIONS:
        found = lines.count(section)
        findings.check(found == 1, f"the descriptor has {found} lines {section!r}, not 1")
    if not all(section in lines for section in _SECTIONS):
        return
    _, extent, base, _ = places = [lines.index(section) for section in _SECTIONS]
    findings.check(places == sorted(places), "the sections of the descriptor are in disorder")
    for number, line in enumerate(lines):
        if line.startswith(_ACCESS):
            in_place = extent < number < base
        elif line.startswith("ddb."):
            in_place = number > base
        else:
            in_place = not line or line.startswith("#") or number < extent
        findings.check(in_place, f"descriptor line {number} is in the wrong section: {line!r}")


def _sort(
    lines: list[str], findings: Findings
) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """OpenStack: each line is blank, a comment, a field, an extent or of the data base."""
    header: dict[str, str] = {}
    ddb: dict[str, str] = {}
    extents: list[str] = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        key, _, value = line.partition("=")
        if line.startswith(_ACCESS):
            extents.append(line)
        elif match := _DDB_LINE.fullmatch(line):
            findings.check(match[1] not in ddb, f"the descriptor has {match[1]} twice")
            ddb[match[1]] = match[2]
        elif "=" in line and key in _HEADER_KEYS:
            findings.check(key not in header, f"the descriptor has {key} twice")
            header[key] = value
        else:
            findings.add(f"the descriptor has an unknown line {line!r}")
    return header, extents, ddb


def _check_header(header: dict[str, str], findings: Findings, create_type: str) -> None:
    """The fields are case-sensitive for qemu; the parent is none."""
    for key, wanted in (
        ("version", "1"),
        ("parentCID", "ffffffff"),
        ("createType", f'"{create_type}"'),
    ):
        found = header.get(key)
        findings.check(found == wanted, f"descriptor field {key} is {found!r}, not {wanted!r}")
    cid = header.get("CID", "")
    findings.check(
        re.fullmatch("[0-9a-f]{8}", cid) is not None and cid not in ("ffffffff", "fffffffe"),
        f"descriptor field CID is {cid!r}, not 8 hex digits other than ffffffff and fffffffe",
    )
    encoding = header.get("encoding", '"UTF-8"')
    findings.check(encoding == '"UTF-8"', f"descriptor field encoding is {encoding!r}")
    native = header.get("isNativeSnapshot", '"no"')
    findings.check(native == '"no"', f"descriptor field isNativeSnapshot is {native!r}")


def _check_extents(extents: list[str], findings: Findings, capacity: int) -> None:
    """One extent of the whole disk, with a bare file name (OpenStack refuses any '/')."""
    findings.check(len(extents) == 1, f"the descriptor has {len(extents)} extents, not 1")
    for line in extents:
        match = _EXTENT.fullmatch(line)
        if match is None:
            findings.add(f'extent line {line!r} is not RW SECTORS SPARSE "NAME"')
            continue
        findings.check(
            int(match[1]) == capacity,
            f"extent line {line!r} has not the capacity of {capacity} sectors",
        )
        name = match[2]
        findings.check(
            name.strip(". ") != "" and not any(c in name for c in "/\\:"),
            f"extent line {line!r} has no bare file name",
        )


def _check_ddb(ddb: dict[str, str], findings: Findings, cid: str) -> None:
    """The data base is complete (vSphere misses toolsVersion) and has known values."""
    for key in _NEEDED_DDB:
        findings.check(key in ddb, f"the descriptor has no {key}")
    for key, value in ddb.items():
        pattern = _DDB_VALUES.get(key)
        findings.check(
            pattern is not None and re.fullmatch(pattern, value) is not None,
            f"descriptor field {key} has the value {value!r}, or is unknown",
        )
    content = ddb.get("ddb.longContentID", cid)
    findings.check(
        content[-8:] == cid, f"ddb.longContentID {content!r} does not end with the CID {cid!r}"
    )


def _check_geometry(ddb: dict[str, str], findings: Findings, capacity: int) -> None:
    """ide: 16 heads, 63 sectors, at most 16383 cylinders; else 255, 63 and 65535."""
    names = ("cylinders", "heads", "sectors")
    found = tuple(ddb.get(f"ddb.geometry.{name}", "") for name in names)
    if ddb.get("ddb.adapterType") == "ide":
        size, heads, most = 16 * 63, 16, 16383
        cylinders = {max(1, capacity // size), ceil_div(capacity, size)}
    else:
        size, heads, most = 255 * 63, 255, 65535
        cylinders = {ceil_div(capacity, size)}
    right = {(str(min(most, c)), str(heads), "63") for c in cylinders}
    findings.check(found in right, f"ddb.geometry is {found}, not one of {sorted(right)}")
