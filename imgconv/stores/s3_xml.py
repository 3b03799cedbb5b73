"""The XML documents of S3, for whoever speaks to it without its library."""

from collections.abc import Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

from imgconv.objectstore import Part
from imgconv.stores.s3_wire import Answer, checksums, crc_of, etag_of, quoted, told

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_META = "x-amz-meta-"


def parsed(content: bytes) -> Element:
    """Return the root of a document; ValueError for what is none, or declares a type.

    A service that takes its time sends white space before the document.
    """
    try:
        text = content.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError("the answer is not UTF-8") from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("the answer declares entities")
    try:
        return fromstring(text)
    except ParseError as error:
        raise ValueError("the answer is not XML") from error


def is_error(root: Element) -> bool:
    """Say whether a document is about an error."""
    return root.tag.rpartition("}")[2] == "Error"


def fields_of(element: Element) -> Answer:
    """Return the texts of an element's children by their names."""
    return {child.tag.rpartition("}")[2]: child.text or "" for child in element}


def fields_of_headers(headers: Mapping[str, str]) -> Answer:
    """Return what headers tell of a part or an object, under the names documents use."""
    return {
        "ETag": headers.get("etag", ""),
        "ChecksumCRC64NVME": headers.get("x-amz-checksum-crc64nvme", ""),
        "VersionId": headers.get("x-amz-version-id"),
        "Metadata": {
            name.lower().removeprefix(_META): value
            for name, value in headers.items()
            if name.lower().startswith(_META)
        },
    }


def parts_in(root: Element) -> Iterator[Part]:
    """Yield the parts that a page lists; ValueError when they are not described."""
    for row in map(fields_of, root.iterfind("{*}Part")):
        number, size = _number(row, "PartNumber"), _number(row, "Size")
        yield Part(number, size, etag_of(row), crc_of(row))


def _number(row: Answer, name: str) -> int:
    text = str(told(row, name)).strip()
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"the answer has {name} {text!r}")
    return int(text)


def goes_on(root: Element) -> bool:
    """Say whether there are more pages."""
    return root.findtext("{*}IsTruncated", "").strip() == "true"


def completion(parts: Sequence[Part], *, with_checksums: bool) -> bytes:
    """Return the document that completes an upload; checksums are verified once more."""
    root = Element("CompleteMultipartUpload", xmlns=_NAMESPACE)
    for part in parts:
        row = SubElement(root, "Part")
        SubElement(row, "PartNumber").text = str(part.number)
        SubElement(row, "ETag").text = quoted(part.etag)
        for name, value in checksums(part.crc if with_checksums else None, None).items():
            SubElement(row, name).text = value
    return tostring(root)
