"""The tables of docs/fleet.md."""

from dataclasses import replace

from markdown import table

from fleet.jobs import LIMITS, SHARES, job, pickled
from fleet.model import GBIT, Fleet, Pace, Prices, scan_pace, send_pace, simulate
from imgconv.fleet.coordinate import MAX_PARTS
from imgconv.fleet.dispatch import IN_FLIGHT
from imgconv.units import GiB, KiB, MiB, TiB, div_ceil
from imgconv.upload.options import UploadOptions

FORMATS = ("raw", "qcow2", "vhdx")
WORKERS = (1, 4, 16, 64, 256, 1024, 4096)


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"


def errands_table() -> str:
    rows = []
    for kind, name in (
        *(("dense", name) for name in FORMATS),
        ("scattered", "qcow2"),
        ("sparse", "raw"),
        ("sparse", "qcow2"),
    ):
        work = job(kind, TiB, name)
        rows.append(
            (
                f"{kind}, {name}",
                f"{work.layout.size / GiB:,.0f} GiB",
                f"{work.part / MiB:.0f} MiB",
                f"{len(work.places):,}",
                f"{work.copies:,}",
                f"{len(work.scans):,}",
                f"{len(work.sends):,}",
                f"{div_ceil(work.scan_pickle, KiB):,} KiB",
                f"{div_ceil(work.send_pickle, KiB):,} KiB",
                f"{div_ceil(pickled(work.layout), MiB):,} MiB",
            )
        )
    head = "1 TiB | output | part | parts | of zeros | scan errands | send errands"
    return table(f"{head} | a scan errand | a send errand | layout".split(" | "), rows)


STORES = {
    "S3, no limit known": {"source": float("inf"), "store": float("inf")},
    "OSS in Hangzhou": {"source": 100 * GBIT, "store": 20 * GBIT},
    "OSS, elsewhere": {"source": 5 * GBIT, "store": 5 * GBIT},
    "disk on one file server of 10 Gbit/s": {"source": 10 * GBIT, "store": 20 * GBIT},
}


def workers_table(fleet: Fleet) -> str:
    work = job("dense", TiB, "qcow2")
    rows = []
    for workers in WORKERS:
        row = [f"{workers:,}"]
        for changes in STORES.values():
            _, _, seconds = simulate(replace(fleet, workers=workers, **changes), work)
            row.append(f"{minutes(seconds)} min")
        rows.append(row)
    return table(["workers", *STORES], rows)


def disks_table(fleet: Fleet) -> str:
    rows = []
    for size in (TiB // 8, TiB, 8 * TiB, 32 * TiB):
        work = job("dense", size, "qcow2")
        scan, send, total = simulate(fleet, work)
        _, ample, _ = simulate(fleet, work, memory=2 * work.part)
        rows.append(
            (
                f"{size / TiB:g} TiB",
                f"{work.part / MiB:,.0f} MiB",
                f"{len(work.scans) + len(work.sends) + 1:,}",
                f"{minutes(scan.seconds)} min",
                f"{minutes(send.seconds)} min",
                f"{max(UploadOptions().memory, work.part) / MiB:,.0f} MiB",
                f"{minutes(ample.seconds)} min with {2 * work.part / MiB:,.0f} MiB",
                f"{minutes(total)} min",
            )
        )
    head = (
        "disk, all data | a part | errands | scanning | sending | memory for parts of a worker"
    )
    return table(f"{head} | sending with more memory | all of it".split(" | "), rows)


def limits_table(fleet: Fleet) -> str:
    work = job("dense", TiB, "qcow2")
    hangzhou = replace(fleet, **STORES["OSS in Hangzhou"])
    scan, send = scan_pace(hangzhou), send_pace(hangzhou, work.part)
    requests = hangzhou.store / work.part
    handed = 1 / fleet.coordinator
    raw = job("sparse", TiB, "raw")
    copying = div_ceil(raw.copies, UploadOptions().concurrency) * fleet.copy
    rows = [
        ("sending: the store's bandwidth", "20 Gbit/s", f"{crowd(send):,} workers"),
        ("scanning: the source's bandwidth", "100 Gbit/s", f"{crowd(scan):,} workers"),
        ("errands under way of a disk", f"{IN_FLIGHT:,}", f"{IN_FLIGHT:,} workers"),
        (
            "errands a second from the coordinator",
            f"{handed:,.0f}",
            f"{handed * min(work.sends) / GiB:,.0f} GiB/s sent, "
            f"{handed * SHARES.scan / GiB:,.0f} GiB/s scanned",
        ),
        (
            "requests a second, of one object",
            "3,500 (S3, a prefix)",
            f"{requests:.0f} of them at 20 Gbit/s",
        ),
        (
            "parts of an upload",
            f"{LIMITS.max_parts:,}",
            f"{LIMITS.max_parts * LIMITS.max_part / TiB:.1f} TiB, in parts of 5 GiB",
        ),
        (
            "parts in an errand",
            f"{MAX_PARTS}",
            f"of less than {SHARES.send // MAX_PARTS / MiB:.0f} MiB",
        ),
        (
            "copies of zeros at once (raw)",
            f"{UploadOptions().concurrency}",
            f"{minutes(copying)} min for the {raw.copies:,} of a sparse disk",
        ),
    ]
    return table(["limit", "value", "reached at"], rows)


def crowd(pace: Pace) -> int:
    """How many workers it takes until they hold one another up."""
    return div_ceil(int(1e15 * pace.alone), int(1e15 * pace.together))


def cost_table(fleet: Fleet, prices: Prices) -> str:
    rows = []
    fleet = replace(fleet, **STORES["S3, no limit known"])
    for kind, name in (("dense", "qcow2"), ("sparse", "qcow2"), ("sparse", "raw")):
        work = job(kind, TiB, name)
        for workers in (1, 16, 256):
            _, _, seconds = simulate(replace(fleet, workers=workers), work)
            puts, gets = work.puts * prices.put / 1000, work.gets * prices.get / 1000
            hired = workers * seconds / 3600 * prices.worker_hour
            rows.append(
                (
                    f"{kind}, {name}",
                    f"{workers}",
                    f"{minutes(seconds)} min",
                    f"{work.puts:,} for ${puts:.2f}",
                    f"{work.gets:,} for ${gets:.2f}",
                    f"${hired:.2f}",
                    f"${puts + gets + hired:.2f}",
                )
            )
    head = "1 TiB | workers | time | PUT | GET | workers' hire | all of it"
    return table(head.split(" | "), rows)


def losses_table(fleet: Fleet) -> str:
    work = job("dense", 8 * TiB, "qcow2")
    rows = []
    for lifetime in (0.0, 24.0, 4.0, 1.0):
        scan, send, seconds = simulate(replace(fleet, workers=64, lifetime=lifetime), work)
        rows.append(
            (
                f"{lifetime:g} h" if lifetime else "for ever",
                f"{scan.losses + send.losses}",
                f"{minutes(seconds)} min",
                f"{(scan.reread + send.reread) / GiB:.1f} GiB",
                f"{send.resent / GiB:.1f} GiB",
                f"{100 * (scan.reread + send.reread) / (2 * 8 * TiB):.2f} %",
            )
        )
    head = "a worker lives | lost | time | read once more | sent once more"
    return table(f"{head} | of all that is read".split(" | "), rows)


def report(fleet: Fleet, prices: Prices) -> str:
    titles = {
        "Errands and their pickled sizes": errands_table(),
        "Workers: a dense disk of 1 TiB to qcow2": workers_table(fleet),
        "Disks to qcow2, by 64 workers, to S3": disks_table(
            replace(fleet, workers=64, **STORES["S3, no limit known"])
        ),
        "Limits, and where a dense disk of 1 TiB meets them": limits_table(fleet),
        "Cost of 1 TiB, from S3 to S3": cost_table(fleet, prices),
        "Losses: a dense disk of 8 TiB to qcow2, by 64 workers, to S3": losses_table(
            replace(fleet, **STORES["S3, no limit known"])
        ),
    }
    return "\n\n".join(f"**{title}.**\n\n{text}" for title, text in titles.items())
