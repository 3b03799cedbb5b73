"""`imgconv export`: the disks of an image into a bucket."""

import argparse
from typing import TYPE_CHECKING

from imgconv import terminal
from imgconv.arguments import (
    add_common,
    add_image_options,
    add_source_format,
    add_threads,
    add_upload,
    read_of,
    size,
    upload_of,
    whole,
)
from imgconv.commands.exporting import add_observing, add_state, observing, show_task
from imgconv.errors import UsageError

if TYPE_CHECKING:
    from imgconv.exporting.plan import ExportSettings
    from imgconv.exporting.request import ExportFormat, ExportLimits, ExportRequest
    from imgconv.exporting.task import ExportTask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    _add_request(parser.add_argument_group("the request"))
    _add_store(parser.add_argument_group("the store"))
    _add_manner(parser.add_argument_group("how it is done"))
    add_state(parser)
    add_observing(parser)
    add_source_format(parser)
    add_image_options(parser)
    add_threads(parser)
    add_upload(parser)
    add_common(parser)


def _add_request(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--image-id", required=True, metavar="ID", help="of the image")
    group.add_argument(
        "--disk",
        required=True,
        action="append",
        metavar="ROLE=PATH",
        dest="disks",
        help="a disk: system=PATH, data:xvdb=PATH, ...",
    )
    group.add_argument("--bucket", required=True, metavar="NAME", help="where objects go")
    group.add_argument("--prefix", metavar="TEXT", help="begins all names: digits and letters")
    group.add_argument(
        "--format", metavar="FORMAT", default="raw", help="raw (default), vhd, qcow2, vmdk, vdi"
    )
    group.add_argument(
        "--also",
        action="append",
        metavar="FORMAT[,KEY=VALUE...][:BUCKET]",
        default=[],
        help="another format, made in the same pass over each disk; may be given again",
    )
    group.add_argument(
        "--raw-container", metavar="KIND", help="tar.gz: deliver raw as .raw.tar.gz"
    )
    group.add_argument(
        "-o",
        metavar="KEY=VALUE,...",
        dest="options",
        action="append",
        default=[],
        help="options of the format; -o help lists them",
    )
    group.add_argument("--request-id", metavar="ID", help="by which the caller knows it")
    group.add_argument("--region", metavar="NAME", help="where the bucket has to be")
    group.add_argument("--role", metavar="NAME", help="RAM role of the instance (oss)")


def _add_store(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--store",
        required=True,
        metavar="URL",
        help="oss://ENDPOINT, s3://ENDPOINT, or file:///FOLDER, where a bucket is a folder; "
        "ENDPOINT may begin with http://",
    )
    group.add_argument(
        "--store-options",
        metavar="KEY=VALUE,...",
        action="append",
        default=[],
        help="more options of the store; imgconv --store help lists them",
    )


def _add_manner(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--template", metavar="TEXT", help="of names; see the documentation")
    group.add_argument("--overwrite", action="store_true", help="replace objects that exist")
    group.add_argument(
        "--keep", action="store_true", help="if it fails, keep what was sent, to resume"
    )
    group.add_argument(
        "--disks-at-once", type=whole, metavar="N", default=1, help="disks in parallel (1)"
    )
    group.add_argument(
        "--max-data-disks", type=whole, metavar="N", default=4, help="data disks allowed (4)"
    )
    group.add_argument(
        "--max-data-disk-size",
        type=size,
        metavar="SIZE",
        default=500 << 30,
        help="of each data disk allowed (500G)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, and show the task when it is over."""
    from imgconv.exporting.service import export

    with observing(arguments) as observers:
        task = export(
            _request(arguments),
            _disks(arguments.disks),
            store=arguments.store,
            store_options=",".join(arguments.store_options),
            settings=_settings(arguments),
            limits=_limits(arguments),
            state=arguments.state,
            progress=observers.progress,
            listener=observers.listener,
            on_beat=observers.on_beat,
            on_accepted=lambda task: _announce(arguments, task),
        )
    show_task(arguments, task.state())
    return 0


def _announce(arguments: argparse.Namespace, task: "ExportTask") -> None:
    """Say up front by what id it can be resumed, and what there will be."""
    if not arguments.quiet and not arguments.json:
        terminal.say(f"task {task.task_id}")
        for url in task.objects.values():
            terminal.say(f"  {url}")


def _request(arguments: argparse.Namespace) -> "ExportRequest":
    from imgconv.exporting.request import ExportRequest

    return ExportRequest(
        image_id=arguments.image_id,
        bucket=arguments.bucket,
        prefix=arguments.prefix,
        image_format=arguments.format,
        role=arguments.role,
        region=arguments.region,
        raw_container=arguments.raw_container,
        format_options=",".join(arguments.options),
        also=tuple(_also(text) for text in arguments.also),
        request_id=arguments.request_id,
    )


def _also(text: str) -> "ExportFormat":
    from imgconv.exporting.request import ExportFormat

    described, colon, bucket = text.partition(":")
    name, _, options = described.partition(",")
    return ExportFormat(name, options, bucket if colon else None)


def _disks(texts: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        role, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError(f"--disk {text}: say system=PATH or data:DEVICE=PATH")
        if role in found:
            raise UsageError(f"--disk {role} is given twice")
        found[role] = path
    return found


def _settings(arguments: argparse.Namespace) -> "ExportSettings":
    from dataclasses import replace

    from imgconv.exporting.plan import ExportSettings

    upload = upload_of(arguments)
    if arguments.receipt is not None or (upload and (upload.resume or upload.store_receipt)):
        raise UsageError(
            "an export is always resumable, by imgconv tasks resume, and has its receipts in "
            "the manifest: --resume, --journal, --receipt and --store-receipt are of no use"
        )
    settings = ExportSettings(
        overwrite=arguments.overwrite,
        keep=arguments.keep,
        disks_at_once=arguments.disks_at_once,
        threads=arguments.threads,
        source_format=arguments.source_format,
        read=read_of(arguments),
    )
    if upload is not None:
        settings = replace(settings, upload=upload)
    if arguments.template is not None:
        settings = replace(settings, template=arguments.template)
    return settings


def _limits(arguments: argparse.Namespace) -> "ExportLimits":
    from dataclasses import replace

    from imgconv.exporting.request import ExportLimits

    limits = ExportLimits(
        data_disks=arguments.max_data_disks, data_disk_size=arguments.max_data_disk_size
    )
    if arguments.max_exports is None:
        return limits
    return replace(limits, exports=arguments.max_exports)
