"""All that a task is: made once, when a request is accepted, and remembered as JSON."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from imgconv.errors import ImgconvError, OptionError, UsageError
from imgconv.exporting.codes import raise_in_service_terms
from imgconv.exporting.destination import Destination
from imgconv.exporting.errors import DiskAmountOrSize
from imgconv.exporting.naming import MANIFEST, TEMPLATE, object_names
from imgconv.exporting.request import (
    SYSTEM,
    ExportDisk,
    ExportFormat,
    ExportLimits,
    ExportRequest,
)
from imgconv.formats import check_size
from imgconv.formats.base import Format
from imgconv.opening import opened
from imgconv.sources.options import ReadOptions
from imgconv.stores import Store
from imgconv.units import format_size
from imgconv.upload.options import UploadOptions
from imgconv.upload.retry import Backoff
from imgconv.urls import scheme_of

VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """How an export is carried out.

    Args:
        template: of the objects' names, see `imgconv.exporting.naming`.
        overwrite: replace objects of these names; otherwise one that exists is an error.
        keep: of an export that fails, keep what was sent, to go on from there.
        disks_at_once: how many disks are converted at the same time.
        threads: workers for each of them; default: the number of processors.
        source_format: the format of the disks; default: what name and content say.
        read: what to believe of the disks, and which files they may need.
        upload: how to send; `resume` and `journal` are seen to.
    """

    template: str = TEMPLATE
    overwrite: bool = False
    keep: bool = False
    disks_at_once: int = 1
    threads: int | None = None
    source_format: str | None = None
    read: ReadOptions | None = None
    upload: UploadOptions = field(default_factory=UploadOptions)

    def __post_init__(self) -> None:
        if not 1 <= self.disks_at_once <= 16:
            raise UsageError(f"disks_at_once={self.disks_at_once}: must be from 1 to 16")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlan:
    """A disk and an object of it; `size` is virtual, in bytes, `identity` says which disk it
    was when the request was accepted. Of a disk that is exported in several formats there
    are as many, one after the other."""

    name: str
    source: str
    source_format: str
    format: str
    bucket: str
    key: str
    size: int
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An accepted request; the manifest goes into the bucket of `destination`.

    `locks` are what no two tasks may have in common: for each format, where the manifest of
    an export in that format alone would be. `exports` is how many tasks might run at once.
    """

    request: ExportRequest
    destination: Destination
    settings: ExportSettings
    disks: tuple[DiskPlan, ...]
    manifest: str
    locks: tuple[str, ...]
    exports: int | None

    @property
    def target(self) -> str:
        """The URL of the manifest, the last object to appear."""
        return self.destination.url(self.manifest)

    @property
    def total(self) -> int:
        """Bytes of all disks, of each once for every format."""
        return sum(disk.size for disk in self.disks)

    def place(self, disk: DiskPlan) -> Destination:
        """Return the bucket that a disk's object goes into."""
        return self.destination.bucket_called(disk.bucket)

    def url(self, disk: DiskPlan) -> str:
        """Return the URL of a disk's object."""
        return self.place(disk).url(disk.key)

    def keys_by_bucket(self) -> dict[str, list[str]]:
        """Return the keys of all objects by bucket; that of the manifest is the last of its."""
        found: dict[str, list[str]] = {}
        for disk in self.disks:
            found.setdefault(disk.bucket, []).append(disk.key)
        found[self.destination.bucket].append(self.manifest)
        return found

    def output(self, disk: DiskPlan) -> Format:
        """Return the format of a disk's object, with its options."""
        kind = next(kind for kind in self.request.formats if kind.name == disk.format)
        return self.request.output(disk.name, kind)

    def identity(self, disk: DiskPlan) -> str:
        """Return the name that all ids in a disk's object derive from."""
        return f"{self.request.image_id}_{disk.name}"

    def source_store(self, source: str) -> Store | None:
        """Return how to reach a disk that is an object in the same kind of store."""
        same = scheme_of(source) == self.destination.store.scheme
        return self.destination.store if same else None

    def text(self) -> str:
        """Return it as JSON."""
        record = {
            "version": VERSION,
            "request": asdict(self.request),
            "destination": self.destination.record(),
            "settings": asdict(self.settings),
            "disks": [asdict(disk) for disk in self.disks],
            "manifest": self.manifest,
            "locks": self.locks,
            "exports": self.exports,
        }
        return json.dumps(record)

    @classmethod
    def from_text(cls, text: str) -> "Plan":
        """Return what `text` returned; UsageError when another version wrote it."""
        record = json.loads(text)
        if record["version"] != VERSION:
            raise UsageError("this task was begun by another version of imgconv")
        return cls(
            request=ExportRequest.from_record(record["request"]),
            destination=Destination.from_record(record["destination"]),
            settings=_settings(record["settings"]),
            disks=tuple(DiskPlan(**disk) for disk in record["disks"]),
            manifest=record["manifest"],
            locks=tuple(record["locks"]),
            exports=record["exports"],
        )


def _settings(record: dict[str, Any]) -> ExportSettings:
    upload = dict(record["upload"])
    upload["backoff"] = Backoff(**upload["backoff"])
    read = record["read"]
    if read is not None:
        allowed = read["allow_references"]
        allowed = allowed if isinstance(allowed, str) else tuple(allowed)
        read = ReadOptions(**{**read, "allow_references": allowed})
    return ExportSettings(**{**record, "upload": UploadOptions(**upload), "read": read})


def make_plan(
    request: ExportRequest,
    disks: tuple[ExportDisk, ...],
    destination: Destination,
    limits: ExportLimits,
    settings: ExportSettings,
) -> Plan:
    """Look at every disk, and return what is to be done.

    Raises DiskAmountOrSize, ImageNotSupported, IncorrectImageStatus and OptionError.
    """
    data = len(disks) - 1
    if limits.data_disks is not None and data > limits.data_disks:
        raise DiskAmountOrSize(f"{data} data disks, and {limits.data_disks} may be exported")
    series = [
        _Series(kind, request.bucket_of(kind), _names(request, kind, disks, settings))
        for kind in request.formats
    ]
    _refuse_names(series, destination, settings.template)
    locks = [destination.bucket_called(one.bucket).lock(one.names[MANIFEST]) for one in series]
    plan = Plan(
        request=request,
        destination=destination,
        settings=settings,
        disks=(),
        manifest=series[0].names[MANIFEST],
        locks=tuple(locks),
        exports=limits.exports,
    )
    found = [row for disk in disks for row in _looked_at(plan, disk, series, limits)]
    return replace(plan, disks=tuple(found))


@dataclass(frozen=True, slots=True)
class _Series:
    """The objects of all disks in one format."""

    kind: ExportFormat
    bucket: str
    names: dict[str, str]


def _names(
    request: ExportRequest,
    kind: ExportFormat,
    disks: tuple[ExportDisk, ...],
    settings: ExportSettings,
) -> dict[str, str]:
    return object_names(request, kind, (disk.name for disk in disks), settings.template)


def _refuse_names(series: list[_Series], destination: Destination, template: str) -> None:
    places = [(one.bucket, key) for one in series for key in one.names.values()]
    if len(set(places)) < len(places):
        raise OptionError(f"{template}: gives two objects one name; use {{extension}}")
    if destination.folder and any("/" in key for _, key in places):
        raise OptionError(f"{template}: in a store of folders, no name has a /")


def _looked_at(
    plan: Plan, disk: ExportDisk, series: list[_Series], limits: ExportLimits
) -> list[DiskPlan]:
    settings, most = plan.settings, limits.data_disk_size
    store = plan.source_store(disk.source)
    try:
        with opened(disk.source, settings.source_format, settings.read, store, None) as (
            source,
            source_format,
        ):
            if disk.name != SYSTEM and most is not None and source.size > most:
                raise DiskAmountOrSize(
                    f"{source.name}: {disk.name} has {format_size(source.size)}, "
                    f"and a data disk may have {format_size(most)}"
                )
            for one in series:
                check_size(plan.request.output(disk.name, one.kind), source.size)
            return [
                DiskPlan(
                    name=disk.name,
                    source=disk.source,
                    source_format=source_format,
                    format=one.kind.name,
                    bucket=one.bucket,
                    key=one.names[disk.name],
                    size=source.size,
                    identity=source.identity.text,
                )
                for one in series
            ]
    except ImgconvError as error:
        raise_in_service_terms(error)
