"""What the objects of an export are called: a template, filled in and checked up front."""

import re
from collections.abc import Iterable

from imgconv.errors import OptionError
from imgconv.exporting.request import ExportFormat, ExportRequest

TEMPLATE = "{prefix_}{image_id}_{disk}{extension}"
MANIFEST = "manifest"
_FIELD = re.compile(r"\{([^{}]*)\}")
_LONGEST = 1023  # bytes in a name, of the stores the shortest limit


def object_names(
    request: ExportRequest, kind: ExportFormat, disks: Iterable[str], template: str = TEMPLATE
) -> dict[str, str]:
    """Return the names of a format's objects, by disk, and that of its manifest.

    `{prefix_}` is the prefix and an underscore, or nothing; `{disk}` is "system",
    "data_xvdb" or "manifest", whose extension is ".vhd.json" and the like, as each export
    is called after its format. OptionError for a template that names an unknown field or
    gives two objects one name.
    """
    extension = request.extension(kind)
    extensions = dict.fromkeys(disks, extension) | {MANIFEST: f"{extension}.json"}
    names = {disk: _filled(template, request, disk, end) for disk, end in extensions.items()}
    if len(set(names.values())) < len(names):
        raise OptionError(f"{template}: gives two objects one name; use {{disk}}")
    for name in names.values():
        if not name or len(name.encode()) > _LONGEST:
            raise OptionError(f"{name!r}: cannot be the name of an object")
    return names


def _filled(template: str, request: ExportRequest, disk: str, extension: str) -> str:
    values = {
        "prefix": request.prefix or "",
        "prefix_": f"{request.prefix}_" if request.prefix else "",
        "image_id": request.image_id,
        "disk": disk,
        "extension": extension,
    }

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            choice = ", ".join(f"{{{name}}}" for name in values)
            raise OptionError(f"{template}: unknown field {match[0]}; fields: {choice}")
        return values[match[1]]

    return _FIELD.sub(value, template)
