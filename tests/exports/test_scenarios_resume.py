"""Uploads that are killed or given up, and taken up again: one right object, no part twice."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import disks
from support.cli import COMMAND
from support.fault_proxy import (
    BLANK,
    Fault,
    Predicate,
    Request,
    error,
    is_begin,
    is_complete,
    is_copy_part,
    is_head,
    is_list_parts,
    is_list_uploads,
    is_put_part,
)
from support.faults import Fault as OssFault
from support.loopback import Request as OssRequest
from support.mounts import mounted
from support.targets import FOR_EVER, PATIENCE, OssTarget, S3Target, before

import imgconv
from imgconv.errors import (
    ContentDamaged,
    CredentialsExpired,
    OutputExists,
    OutputRefused,
    SourceChanged,
    StoreRefused,
    StoreUnavailable,
    UploadGone,
    WriteFailed,
)
from imgconv.objectstore import PartStore
from imgconv.stores.s3_bucket import Bucket
from imgconv.stores.s3_client import Connector
from imgconv.units import KiB, MiB

BRIEF = imgconv.Backoff(base=0.01, most=0.05, patience=0.3)
FAILED = Fault(instead=error(500, "InternalError"))
HALVES = [Fault(cut_reply=0), Fault(cut_reply=60), Fault(afterwards=BLANK)]
ALL = set(range(1, 6))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five parts of data for S3, the last a small one."""
    return disks.dense(tmp_path_factory.mktemp("disk") / "disk.raw", 21 * MiB)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty parts for OSS, and a bit."""
    return disks.dense(tmp_path_factory.mktemp("disk") / "small.raw", 3004 * KiB)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty parts for OSS, and a bit."""
    return disks.dense(tmp_path_factory.mktemp("disk") / "larger.raw", 6004 * KiB)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def killed(target: S3Target, disk: Path, journal: Path, *more: str) -> None:
    """Run the command until a fault makes the proxy hold a request; end it there."""
    with exporting(target, disk, journal, *more):
        assert target.proxy.holding.wait(PATIENCE)
    target.proxy.holding.clear()


@contextmanager
def exporting(target: S3Target, disk: Path, journal: Path, *more: str) -> Iterator[None]:
    """The command at work; killed in the end."""
    command = [*COMMAND, disk, target.url, "-q", "--resume", "--journal", journal]
    command += ["--endpoint-url", target.proxy.endpoint_url, "--store", "profile=seaweedfs"]
    command += ["--part-size", "5M", "--concurrency", "1", *more]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


Moment = Callable[[S3Target], tuple[Fault, Predicate]]


def never_answered(when: Predicate) -> Moment:
    """The server has done it, and the proxy keeps the answer to itself."""
    return lambda target: (Fault(delay=FOR_EVER), when)


def never_heard(when: Predicate, at: int = 0) -> Moment:
    """The proxy passes on no more than so many bytes of the body."""
    return lambda target: (Fault(stall=FOR_EVER, stall_at=at), when)


def once_answered(first: Predicate, when: Predicate) -> Moment:
    """The same for what comes once something else was answered well."""

    def moment(target: S3Target) -> tuple[Fault, Predicate]:
        def matches(request: Request) -> bool:
            return when(request) and any(one.status == 200 for one in target.log(first))

        return Fault(delay=FOR_EVER), matches

    return moment


MOMENTS = {
    "nothing was begun": never_heard(is_head),
    "begun, not journaled": never_answered(is_begin),
    "in the first part": never_heard(is_put_part(2), MiB),
    "part stored, not journaled": never_answered(is_put_part(2)),
    "in mid-upload": never_heard(is_put_part(4), MiB),
    "last part stored, not journaled": never_answered(is_put_part(1)),
    "all is there": once_answered(is_put_part(1), is_head),
    "complete not heard": never_heard(is_complete),
}
PUBLISHED = {
    "published, not told": never_answered(is_complete),
    "journal not deleted": once_answered(is_complete, is_head),
}


class TestKill:
    """kill -9 of the exporter (scenario 10): the next run finds everything as it was."""

    @pytest.fixture
    def s3_target(self, s3_target: S3Target) -> S3Target:
        """Of a format whose head is known last, and sent last."""
        s3_target.url = s3_target.url.replace(".raw", ".qcow2")
        s3_target.key = s3_target.key.replace(".raw", ".qcow2")
        return s3_target

    @pytest.fixture
    def expected(self, disk: Path, tmp_path: Path) -> Path:
        """What an uninterrupted run makes."""
        imgconv.convert(disk, tmp_path / "expected.qcow2")
        return tmp_path / "expected.qcow2"

    @pytest.mark.parametrize(
        ("moment", "journaled"),
        [
            *((moment, True) for moment in MOMENTS),
            ("in mid-upload", False),
            ("all is there", False),
            ("complete not heard", False),
        ],
    )
    def test_only_what_is_missing_is_sent(
        self,
        s3_target: S3Target,
        disk: Path,
        expected: Path,
        journal: Path,
        moment: str,
        journaled: bool,
    ) -> None:
        """A right object, with the journal and from the store's list alone."""
        s3_target.proxy.script(*MOMENTS[moment](s3_target))
        killed(s3_target, disk, journal)
        assert "" not in s3_target.objects()
        begun = s3_target.unfinished()
        held = s3_target.held() if begun else set()
        if not journaled:
            journal.unlink(missing_ok=True)
        s3_target.forget()
        report = s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(expected)
        everything = {part.number for part in report.parts}
        assert sorted(s3_target.sent()) == sorted(everything - held)
        assert report.kept_parts == len(held)
        assert s3_target.begun() == (0 if begun else 1)
        assert not journal.exists()

    @pytest.mark.parametrize("moment", PUBLISHED)
    def test_an_object_that_is_there_is_not_made_again(
        self, s3_target: S3Target, disk: Path, expected: Path, journal: Path, moment: str
    ) -> None:
        """A right object."""
        s3_target.proxy.script(*PUBLISHED[moment](s3_target))
        killed(s3_target, disk, journal)
        s3_target.assert_whole(expected)
        s3_target.forget()
        s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(expected)
        assert (s3_target.sent(), s3_target.begun()) == ([], 0)
        assert not journal.exists()

    @pytest.mark.parametrize("moment", PUBLISHED)
    def test_without_a_journal_it_could_be_anybodys(
        self, s3_target: S3Target, disk: Path, expected: Path, journal: Path, moment: str
    ) -> None:
        """OutputExists; the object is right, and nothing else is there."""
        s3_target.proxy.script(*PUBLISHED[moment](s3_target))
        killed(s3_target, disk, journal)
        journal.unlink()
        with pytest.raises(OutputExists):
            s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(expected)

    def test_killed_again_and_again(
        self, s3_target: S3Target, disk: Path, expected: Path, journal: Path
    ) -> None:
        """A right object, though no journal tells of the part whose answer was lost."""
        for moment in ("part stored, not journaled", "in mid-upload"):
            s3_target.proxy.script(*MOMENTS[moment](s3_target))
            killed(s3_target, disk, journal)
        s3_target.proxy.script(*PUBLISHED["journal not deleted"](s3_target))
        killed(s3_target, disk, journal)
        s3_target.assert_whole(expected)
        s3_target.forget()
        s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(expected)
        assert s3_target.sent() == []

    def test_killed_at_no_special_moment(
        self, s3_target: S3Target, disk: Path, expected: Path, journal: Path
    ) -> None:
        """A right object; four parts are under way at any time, slowly."""
        arrived: list[Request] = []

        def is_third(request: Request) -> bool:
            arrived.extend([request] if is_put_part()(request) else [])
            return len(arrived) == 3

        s3_target.proxy.script(Fault(stall=FOR_EVER, stall_at=MiB), when=is_third)
        killed(s3_target, disk, journal, "--concurrency", "4", "--rate-limit", "20M")
        s3_target.forget()
        s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(expected)
        assert len(s3_target.sent()) == len(set(s3_target.sent()))
        assert s3_target.begun() == 0

    def test_a_second_run_while_the_first_is_at_it_is_refused(
        self, s3_target: S3Target, disk: Path, expected: Path, journal: Path
    ) -> None:
        """Scenario 20: OutputRefused for the second, a right object by the first."""
        s3_target.proxy.script(Fault(stall=FOR_EVER, stall_at=MiB), when=is_put_part(4))
        with exporting(s3_target, disk, journal):
            assert s3_target.proxy.holding.wait(PATIENCE)
            with pytest.raises(OutputRefused, match="another run"):
                s3_target.export(disk, resume=True, journal=journal)
            assert len(s3_target.unfinished()) == 1
        s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(expected)


class TestHelper:
    """The object of zeros that parts are copied from."""

    @pytest.fixture
    def sparse(self, tmp_path: Path) -> Path:
        """Seven parts, of which the first and the last two have data."""
        pieces = {MiB: b"first", 26 * MiB: b"sixth", 31 * MiB: b"last"}
        return disks.write(tmp_path / "sparse.raw", 32 * MiB, pieces)

    def test_a_helper_that_a_killed_run_left_is_deleted(
        self, s3_target: S3Target, sparse: Path, journal: Path
    ) -> None:
        """Scenarios 10 and 19: a right object; the next run copies nothing itself."""
        s3_target.proxy.script(Fault(stall=FOR_EVER, stall_at=MiB), when=is_put_part(6))
        killed(s3_target, sparse, journal)
        assert list(s3_target.objects()) == [".imgconv-zeros"]
        s3_target.forget()
        s3_target.export(sparse, resume=True, journal=journal)
        s3_target.assert_whole(sparse)
        assert s3_target.log(is_copy_part) == []
        assert sorted(s3_target.sent()) == [6, 7]

    def test_a_helper_that_a_killed_run_left_goes_with_its_upload(
        self, s3_target: S3Target, sparse: Path, journal: Path
    ) -> None:
        """Scenario 19: nothing is left once the upload is aborted."""
        s3_target.proxy.script(Fault(stall=FOR_EVER, stall_at=MiB), when=is_put_part(6))
        killed(s3_target, sparse, journal)
        imgconv.abort_uploads(s3_target.url, store=s3_target.direct, older_than=0)
        s3_target.assert_clean()


class TestKept:
    """A run that fails keeps what it sent, if it is to be resumed."""

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            pytest.param(FAILED, StoreUnavailable, id="failing server"),
            pytest.param(Fault(instead=error(403, "QuotaExceeded")), StoreRefused, id="full"),
            pytest.param(
                Fault(instead=error(400, "ExpiredToken")), CredentialsExpired, id="expired"
            ),
            pytest.param(Fault(flip=MiB), ContentDamaged, id="damage"),
        ],
    )
    def test_the_next_run_goes_on(
        self,
        s3_target: S3Target,
        disk: Path,
        journal: Path,
        fault: Fault,
        kind: type[Exception],
    ) -> None:
        """Scenarios 5, 7 and 12: a clear error, the upload is kept; then a right object."""
        broken = True
        s3_target.proxy.script(
            fault, when=lambda r: broken and is_put_part(4)(r), times=FOR_EVER
        )
        with pytest.raises(kind) as caught:
            s3_target.export(disk, resume=True, journal=journal, backoff=BRIEF, concurrency=1)
        assert any("--resume" in note for note in caught.value.__notes__)
        s3_target.assert_kept()
        held = s3_target.held()
        assert {1, 2, 3} <= held <= ALL - {4}
        broken = False
        s3_target.forget()
        s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(disk)
        assert set(s3_target.sent()) == ALL - held

    def test_a_damaged_part_that_oss_took_is_sent_again(
        self, oss_target: OssTarget, small: Path, journal: Path
    ) -> None:
        """Scenario 5: ContentDamaged, the upload is kept; then a right object."""

        def damage(operation: str, request: OssRequest) -> OssFault | None:
            fourth = operation == "UploadPart" and request.params["partNumber"] == "4"
            return OssFault(flipped=True) if fourth else None

        oss_target.server.faults.rule = damage
        with pytest.raises(ContentDamaged, match="part 4"):
            oss_target.export(small, resume=True, journal=journal, concurrency=1)
        assert 4 in oss_target.held()
        oss_target.server.faults.rule = lambda operation, request: None
        oss_target.forget()
        oss_target.export(small, resume=True, journal=journal)
        oss_target.assert_whole(small)
        assert min(oss_target.sent()) == 4

    @pytest.mark.parametrize("moment", [is_put_part(4), is_complete], ids=["part 4", "end"])
    def test_an_upload_that_is_gone_is_begun_anew(
        self, s3_target: S3Target, disk: Path, journal: Path, moment: Predicate
    ) -> None:
        """Scenario 9: UploadGone, nothing is left; the next run makes a right object."""
        s3_target.proxy.script(Fault(), when=before(moment, s3_target.abort_all))
        with pytest.raises(UploadGone):
            s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_clean()
        s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(disk)
        assert not journal.exists()

    def test_an_upload_that_went_between_two_runs_is_begun_anew(
        self, s3_target: S3Target, disk: Path, journal: Path
    ) -> None:
        """Scenario 9: a right object."""
        give_up(s3_target, disk, journal)
        s3_target.abort_all()
        s3_target.forget()
        s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(disk)
        assert set(s3_target.sent()) == ALL

    @pytest.mark.parametrize("change", ["time", "size"])
    def test_a_source_that_changed_is_refused(
        self, s3_target: S3Target, disk: Path, tmp_path: Path, journal: Path, change: str
    ) -> None:
        """Scenario 18: SourceChanged; the upload is kept until somebody decides."""
        copy = Path(shutil.copy2(disk, tmp_path / "copy.raw"))
        give_up(s3_target, copy, journal)
        if change == "time":
            os.utime(copy, (1, 1))
        else:
            os.truncate(copy, disk.stat().st_size + 512)
        with pytest.raises(SourceChanged, match="to begin anew, delete"):
            s3_target.export(copy, resume=True, journal=journal)
        s3_target.assert_kept()
        imgconv.abort_uploads(s3_target.url, store=s3_target.direct, older_than=0)
        s3_target.assert_clean()

    def test_a_source_that_changed_in_secret_is_refused(
        self, s3_target: S3Target, disk: Path, tmp_path: Path, journal: Path
    ) -> None:
        """Scenario 18: SourceChanged, by the bytes; what was sent is of no use any more."""
        copy = Path(shutil.copy2(disk, tmp_path / "copy.raw"))
        give_up(s3_target, copy, journal)
        with open(copy, "r+b") as file:
            file.seek(6 * MiB)
            file.write(b"other")
        shutil.copystat(disk, copy)
        with pytest.raises(SourceChanged, match="part 2 is no longer what was sent"):
            s3_target.export(copy, resume=True, journal=journal)
        s3_target.assert_clean()
        assert not journal.exists()

    def test_a_job_that_never_began_binds_nobody(
        self, s3_target: S3Target, disk: Path, tmp_path: Path, journal: Path
    ) -> None:
        """Scenario 18: a right object; nothing had been sent of the source as it was."""
        copy = Path(shutil.copy2(disk, tmp_path / "copy.raw"))
        s3_target.proxy.script(Fault(instead=error(403, "AccessDenied")), when=is_begin)
        with pytest.raises(StoreRefused, match="AccessDenied"):
            s3_target.export(copy, resume=True, journal=journal)
        os.utime(copy, (1, 1))
        s3_target.export(copy, resume=True, journal=journal)
        s3_target.assert_whole(disk)


def give_up(target: S3Target, disk: Path, journal: Path, *, number: int = 4) -> None:
    """Make a run fail at a part, and keep those before."""
    full = Fault(instead=error(403, "QuotaExceeded"))
    target.proxy.script(full, when=is_put_part(number))
    with pytest.raises(StoreRefused, match="QuotaExceeded"):
        target.export(disk, resume=True, journal=journal, concurrency=1)


@dataclass
class SmallPages:
    """S3 whose lists come in pages of two rows."""

    target: S3Target
    scheme = "s3"

    def open(self, bucket: str) -> PartStore:
        connector = Connector(
            endpoint_url=self.target.proxy.endpoint_url,
            region=None,
            addressing="auto",
            profile="seaweedfs",
            aws_profile=None,
            connect_timeout=20,
            read_timeout=60,
        )
        return Bucket(bucket, connector, page=2)


class TestLists:
    """What a store says it holds."""

    @pytest.mark.parametrize("journaled", [True, False], ids=["journal", "no journal"])
    def test_a_list_of_many_pages_and_parts_that_came_twice(
        self, s3_target: S3Target, disk: Path, journal: Path, journaled: bool
    ) -> None:
        """Scenario 16: a right object, and no part is sent again."""
        s3_target.proxy.script(Fault(lose_reply=True), when=is_put_part(2), times=2)
        s3_target.proxy.script(Fault(lose_reply=True), when=is_put_part(3), times=3)
        give_up(s3_target, disk, journal, number=5)
        if not journaled:
            journal.unlink()
        s3_target.forget()
        s3_target.export(disk, store=SmallPages(s3_target), resume=True, journal=journal)
        s3_target.assert_whole(disk)
        assert s3_target.sent() == [5]
        assert s3_target.begun() == 0

    @pytest.mark.parametrize("journaled", [True, False], ids=["journal", "no journal"])
    def test_a_list_of_many_pages_of_oss(
        self, oss_target: OssTarget, small: Path, journal: Path, journaled: bool
    ) -> None:
        """Scenario 16: a right object, and no part is sent again."""
        server = oss_target.server
        server.state.page = 7
        fail_oss_at(oss_target, 28)
        with pytest.raises(StoreRefused, match="QuotaExceeded"):
            oss_target.export(small, resume=True, journal=journal, concurrency=1)
        oss_target.assert_kept()
        held = oss_target.held()
        assert held >= set(range(1, 28))
        if not journaled:
            journal.unlink()
        oss_target.forget()
        oss_target.export(small, resume=True, journal=journal)
        oss_target.assert_whole(small)
        assert set(oss_target.sent()) == set(range(1, 32)) - held

    @pytest.mark.parametrize("answer", HALVES)
    @pytest.mark.parametrize("listed", [is_list_parts, is_list_uploads])
    def test_half_a_list_is_asked_for_again(
        self,
        s3_target: S3Target,
        disk: Path,
        journal: Path,
        answer: Fault,
        listed: Predicate,
    ) -> None:
        """Scenario 16: a right object by the same upload, and no part is sent again."""
        give_up(s3_target, disk, journal, number=5)
        journal.unlink()
        s3_target.forget()
        s3_target.proxy.script(answer, when=listed, times=2)
        s3_target.export(disk, resume=True, journal=journal)
        assert s3_target.proxy.pending == 0
        s3_target.assert_whole(disk)
        assert s3_target.sent() == [5]
        assert s3_target.begun() == 0

    @pytest.mark.parametrize("answer", [OssFault(cut_reply=0), OssFault(blank=True)])
    @pytest.mark.parametrize("listed", ["ListParts", "ListMultipartUploads"])
    def test_half_a_list_of_oss_is_asked_for_again(
        self, oss_target: OssTarget, small: Path, journal: Path, answer: OssFault, listed: str
    ) -> None:
        """Scenario 16: a right object by the same upload, and no part is sent again."""
        fail_oss_at(oss_target, 28)
        with pytest.raises(StoreRefused, match="QuotaExceeded"):
            oss_target.export(small, resume=True, journal=journal)
        journal.unlink()
        held = oss_target.held()
        oss_target.forget()
        oss_target.server.faults.add(listed, answer, answer)
        oss_target.export(small, resume=True, journal=journal)
        oss_target.assert_whole(small)
        assert set(oss_target.sent()) == set(range(1, 32)) - held
        assert oss_target.count("InitiateMultipartUpload") == 0

    def test_a_part_that_somebody_replaced_is_not_believed(
        self, s3_target: S3Target, disk: Path, journal: Path
    ) -> None:
        """Scenario 16: a right object; SeaweedFS keeps both and we know which is ours."""
        give_up(s3_target, disk, journal)
        s3_target.replace_part(2, bytes(5 * MiB))
        s3_target.forget()
        s3_target.export(disk, resume=True, journal=journal)
        s3_target.assert_whole(disk)
        assert {4} <= set(s3_target.sent()) <= {4, 5}

    def test_orphans_are_not_taken_for_the_upload(
        self, s3_target: S3Target, disk: Path, journal: Path
    ) -> None:
        """Scenarios 10 and 17: a right object by the upload that has parts, and the orphans."""
        s3_target.proxy.script(Fault(lose_reply=True), when=is_begin, times=6)
        give_up(s3_target, disk, journal)
        assert len(s3_target.unfinished()) == 7
        journal.unlink()
        s3_target.forget()
        s3_target.export(disk, resume=True, journal=journal)
        assert {4} <= set(s3_target.sent()) <= {4, 5}
        assert len(s3_target.unfinished()) == 6
        imgconv.abort_uploads(s3_target.url, store=s3_target.direct, older_than=0)
        s3_target.assert_whole(disk)


def fail_oss_at(target: OssTarget, number: int) -> None:
    """Have OSS refuse a part, once."""
    faults = [OssFault(status=403, code="QuotaExceeded")]

    def refuse(operation: str, request: OssRequest) -> OssFault | None:
        right = operation == "UploadPart" and request.params["partNumber"] == str(number)
        return faults.pop() if right and faults else None

    target.server.faults.rule = refuse


@pytest.mark.usefixtures("root")
class TestFullDisk:
    """A journal that cannot be written (scenario 12)."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of two pages, one of which is taken."""
        with mounted(
            tmp_path / "state", "mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs"
        ) as folder:
            (folder / "filler").write_bytes(bytes(4096))
            yield folder

    def test_it_ends_the_run_and_what_was_sent_is_kept(
        self, oss_target: OssTarget, larger: Path, folder: Path
    ) -> None:
        """WriteFailed, the upload is kept; a right object once there is room."""
        journal = folder / "journal"
        with pytest.raises(WriteFailed, match="No space left"):
            oss_target.export(larger, resume=True, journal=journal, concurrency=1)
        oss_target.assert_kept()
        held = oss_target.held()
        assert 3 < len(held) < 61
        (folder / "filler").unlink()
        oss_target.forget()
        oss_target.export(larger, resume=True, journal=journal)
        oss_target.assert_whole(larger)
        assert set(oss_target.sent()) == set(range(1, 62)) - held

    def test_without_any_room_nothing_is_begun(
        self, oss_target: OssTarget, small: Path, folder: Path
    ) -> None:
        """WriteFailed, nothing was begun; a right object once there is room."""
        journal = folder / "journal"
        (folder / "filler").write_bytes(bytes(8192))
        with pytest.raises(WriteFailed, match="No space left"):
            oss_target.export(small, resume=True, journal=journal)
        assert oss_target.count("InitiateMultipartUpload") == 0
        oss_target.assert_clean()
        (folder / "filler").unlink()
        oss_target.export(small, resume=True, journal=journal)
        oss_target.assert_whole(small)
