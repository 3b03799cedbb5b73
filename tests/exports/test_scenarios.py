"""Uploads under attack: each ends in a right object or in a clear error with no orphan."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import disks
from support.ecs_metadata import EcsMetadata
from support.fault_proxy import (
    BLANK,
    Fault,
    error,
    is_begin,
    is_complete,
    is_copy_part,
    is_put,
    is_put_part,
)
from support.faults import Fault as OssFault
from support.loopback import Request as OssRequest
from support.oss_auth import Key
from support.seaweed import BUCKET
from support.targets import BACKOFF, FOR_EVER, PATIENCE, OssTarget, S3Target, before
from support.watched import Watched

import imgconv
from imgconv.errors import (
    ContentDamaged,
    CredentialsExpired,
    OutOfResources,
    OutputExists,
    StoreRefused,
    StoreUnavailable,
    UploadGone,
)
from imgconv.objectstore import ObjectInfo
from imgconv.progress import Counters
from imgconv.sinks.multipart import MultipartSink
from imgconv.stretch import Stretch
from imgconv.units import KiB, MiB

SIZE = 17 * MiB  # four parts, of which the last is small
PART = 5 * MiB

# the server has done it, and the answer does not say so
UNANSWERED = [
    pytest.param(Fault(lose_reply=True), id="none"),
    pytest.param(Fault(cut_reply=0), id="cut"),
    pytest.param(Fault(afterwards=BLANK), id="blank"),
]
UNANSWERED_BY_OSS = [
    pytest.param(OssFault(drop_reply=True), id="none"),
    pytest.param(OssFault(cut_reply=0), id="cut"),
    pytest.param(OssFault(blank=True), id="blank"),
]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data throughout, so that every part is sent."""
    return disks.dense(tmp_path_factory.mktemp("disk") / "disk.raw", SIZE)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for OSS, whose parts may be smaller: eight and a bit."""
    return disks.dense(tmp_path_factory.mktemp("disk") / "small.raw", 808 * KiB)


@pytest.fixture(scope="module")
def bigger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight parts."""
    return disks.dense(tmp_path_factory.mktemp("disk") / "bigger.raw", 36 * MiB)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven parts, of which the first and the last have data."""
    pieces = {MiB: b"first", 35 * MiB - 512: b"last"}
    return disks.write(tmp_path_factory.mktemp("disk") / "sparse.raw", 35 * MiB, pieces)


def sink_to(target: S3Target | OssTarget, store: Any, **more: Any) -> MultipartSink:
    more = {"bound": SIZE, **more}
    upload = {"part_size": target.part_size, "backoff": BACKOFF, **more.pop("upload", {})}
    return MultipartSink(store, target.key, options=imgconv.UploadOptions(**upload), **more)


def fill(sink: MultipartSink, content: bytes) -> None:
    for at in range(0, len(content), MiB):
        sink.put(Stretch.of(at, [memoryview(content)[at : at + MiB]]))
    sink.commit(len(content))


class TestNetwork:
    """Connections that break, and answers that get lost."""

    def test_a_reset_costs_one_part(self, s3_target: S3Target, disk: Path) -> None:
        """Scenario 1: a right object."""
        s3_target.proxy.script(Fault(reset_at=2 * MiB), when=is_put_part(3))
        report = s3_target.export(disk)
        s3_target.assert_whole(disk)
        assert sorted(s3_target.sent()) == [1, 2, 3, 3, 4]
        assert report.retries == 1

    def test_a_reset_costs_one_part_of_oss(self, oss_target: OssTarget, small: Path) -> None:
        """Scenario 1: a right object."""
        oss_target.server.faults.add("UploadPart", OssFault(reset_after=50 * KiB))
        assert oss_target.export(small).retries == 1
        oss_target.assert_whole(small)

    def test_a_part_is_sent_again_when_the_answer_is_lost(
        self, s3_target: S3Target, disk: Path
    ) -> None:
        """Scenario 2: a right object, although the store then holds the part twice."""
        s3_target.proxy.script(Fault(lose_reply=True), when=is_put_part(3), times=2)
        report = s3_target.export(disk)
        s3_target.assert_whole(disk)
        assert s3_target.sent().count(3) == 3
        assert report.retries == 2

    def test_a_part_is_sent_again_when_the_answer_of_oss_is_lost(
        self, oss_target: OssTarget, small: Path
    ) -> None:
        """Scenario 2: a right object."""
        oss_target.server.faults.add("UploadPart", OssFault(drop_reply=True))
        assert oss_target.export(small).retries == 1
        oss_target.assert_whole(small)

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(Fault(stall=FOR_EVER, stall_at=MiB), id="stalled in mid-part"),
            pytest.param(Fault(rate=10 * KiB), id="10 KiB a second"),
            pytest.param(Fault(delay=FOR_EVER), id="half-open"),
        ],
    )
    def test_a_connection_that_hangs_is_given_up(
        self, s3_target: S3Target, disk: Path, fault: Fault
    ) -> None:
        """Scenario 15: a right object."""
        s3_target.proxy.script(fault, when=is_put_part(3))
        impatient = s3_target.options(connect_timeout=1, read_timeout=1)
        s3_target.export(disk, store=impatient)
        s3_target.assert_whole(disk)
        assert s3_target.sent().count(3) >= 2

    def test_memory_stays_bounded_while_connections_hang(
        self, s3_target: S3Target, bigger: Path
    ) -> None:
        """Scenario 15: the source waits; a right object."""
        s3_target.proxy.script(Fault(stall=FOR_EVER), when=is_put_part(), times=4)
        store = s3_target.options(connect_timeout=1, read_timeout=1).open(BUCKET)
        content, memory = bigger.read_bytes(), 10 * MiB
        stored: list[int] = [0]
        sink = sink_to(
            s3_target,
            store,
            bound=len(content),
            upload={"memory": memory},
            watch=lambda counters: stored.append(counters.parts * PART),
        )
        most = 0
        for at in range(0, len(content), MiB):
            sink.put(Stretch.of(at, [memoryview(content)[at : at + MiB]]))
            most = max(most, at + MiB - stored[-1])
        sink.commit(len(content))
        store.close()
        s3_target.assert_whole(bigger)
        assert most == memory
        assert sink.report is not None
        assert sink.report.retries >= 4

    @pytest.mark.parametrize("answer", UNANSWERED)
    def test_a_lost_answer_to_begin_leaves_an_upload_that_is_found(
        self, s3_target: S3Target, disk: Path, answer: Fault
    ) -> None:
        """Scenario 17: a right object, and an orphan until somebody cleans up."""
        s3_target.proxy.script(answer, when=is_begin)
        s3_target.export(disk)
        (orphan,) = s3_target.unfinished()
        assert imgconv.abort_uploads(s3_target.url, store=s3_target.direct) == ()
        gone = imgconv.abort_uploads(s3_target.url, store=s3_target.direct, older_than=0)
        assert [upload.id for upload in gone] == [orphan]
        s3_target.assert_whole(disk)

    @pytest.mark.parametrize("answer", UNANSWERED_BY_OSS)
    def test_a_lost_answer_to_begin_leaves_an_upload_of_oss_that_is_found(
        self, oss_target: OssTarget, small: Path, answer: OssFault
    ) -> None:
        """Scenario 17: a right object, and an orphan until somebody cleans up."""
        oss_target.server.faults.add("InitiateMultipartUpload", answer)
        oss_target.export(small)
        assert len(oss_target.unfinished()) == 1
        imgconv.abort_uploads(oss_target.url, store=oss_target.store, older_than=0)
        oss_target.assert_whole(small)


class TestServer:
    """A server that is busy, failing, or dies."""

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(Fault(instead=error(503, "SlowDown")), id="no hint"),
            pytest.param(
                Fault(instead=error(503, "SlowDown", retry_after=1)), id="retry-after"
            ),
            pytest.param(Fault(early=error(503, "SlowDown")), id="before the body is read"),
        ],
    )
    def test_fewer_requests_at_once_while_throttled_and_more_again(
        self, s3_target: S3Target, disk: Path, fault: Fault
    ) -> None:
        """Scenario 3: a right object."""
        s3_target.proxy.script(fault, when=is_put_part(), times=5)
        content = disk.read_bytes() * 3
        at_once = []

        def watch(_: Counters) -> None:
            at_once.append(sink.uploader._client.window.limit)

        store = s3_target.store.open(BUCKET)
        sink = sink_to(s3_target, store, bound=len(content), watch=watch)
        fill(sink, content)
        store.close()
        assert s3_target.objects() == {"": content}
        assert s3_target.unfinished() == []
        assert (at_once[0], min(at_once)) == (4, 1)
        assert at_once[-1] > 1
        assert sink.report is not None
        assert sink.report.retries == 5

    def test_oss_throttles_too(self, oss_target: OssTarget, small: Path) -> None:
        """Scenario 3: a right object."""
        busy = OssFault(status=503, code="SlowDown", unread=True)
        late = OssFault(status=503, code="QpsLimitExceeded", headers=(("Retry-After", "1"),))
        oss_target.server.faults.add("UploadPart", busy, late, busy, late, busy)
        # A connection that was closed without a word may be tried once more before that shows.
        assert oss_target.export(small).retries >= 5
        oss_target.assert_whole(small)

    def test_an_error_after_a_part_was_taken_means_sending_it_again(
        self, s3_target: S3Target, disk: Path
    ) -> None:
        """Scenario 4: a right object."""
        failed = Fault(afterwards=error(500, "InternalError"))
        s3_target.proxy.script(failed, when=is_put_part(3))
        s3_target.export(disk)
        s3_target.assert_whole(disk)
        assert s3_target.sent().count(3) == 2

    def test_an_error_after_the_object_was_published_is_seen_through(
        self, s3_target: S3Target, disk: Path
    ) -> None:
        """Scenario 4: a right object, and nobody asks twice for it."""
        s3_target.proxy.script(Fault(afterwards=error(500, "InternalError")), when=is_complete)
        s3_target.export(disk)
        s3_target.assert_whole(disk)
        assert len(s3_target.log(is_complete)) == 1

    @pytest.mark.parametrize("operation", ["put_part", "complete", "begin"])
    def test_a_server_that_fails_for_ever_ends_it(
        self, s3_target: S3Target, disk: Path, operation: str
    ) -> None:
        """Scenario 12: StoreUnavailable, nothing is left."""
        when = {"put_part": is_put_part(3), "complete": is_complete, "begin": is_begin}
        failed = Fault(instead=error(500, "InternalError"))
        s3_target.proxy.script(failed, when=when[operation], times=FOR_EVER)
        brief = imgconv.Backoff(base=0.01, most=0.05, patience=0.5)
        with pytest.raises(StoreUnavailable, match="InternalError"):
            s3_target.export(disk, backoff=brief)
        s3_target.assert_clean()

    def test_a_quota_ends_it_at_once(self, s3_target: S3Target, disk: Path) -> None:
        """Scenario 12: StoreRefused, nothing is left."""
        full = Fault(instead=error(403, "QuotaExceeded"))
        s3_target.proxy.script(full, when=is_put_part(3), times=FOR_EVER)
        with pytest.raises(StoreRefused, match="QuotaExceeded"):
            s3_target.export(disk)
        assert s3_target.sent().count(3) == 1
        s3_target.assert_clean()

    def test_a_server_that_dies_and_comes_back_is_waited_for(
        self, s3_target: S3Target, bigger: Path
    ) -> None:
        """Scenario 11: a right object, by the upload that was under way."""
        seaweed = s3_target.seaweed
        back = threading.Thread(target=seaweed.start)

        def die() -> None:
            taken.update(s3_target.held())
            seaweed.kill()
            back.start()

        taken: set[int] = set()
        s3_target.proxy.script(Fault(), when=before(is_put_part(6), die))
        try:
            patient = imgconv.Backoff(base=0.1, most=0.5, patience=3 * PATIENCE)
            store = s3_target.options(connect_timeout=5, read_timeout=5)
            s3_target.export(bigger, store=store, backoff=patient, concurrency=2)
        finally:
            back.join()
        s3_target.assert_whole(bigger)
        assert s3_target.begun() == 1
        again = [number for number in s3_target.sent() if number in taken]
        assert len(taken) >= 3
        assert len(again) - len(taken) <= 2  # those whose answers were under way


class TestDamage:
    """Bytes that are not what was sent."""

    def test_a_flipped_bit_costs_one_part(self, s3_target: S3Target, disk: Path) -> None:
        """Scenario 5: a right object."""
        s3_target.proxy.script(Fault(flip=MiB), when=is_put_part(3))
        assert s3_target.export(disk).retries == 1
        s3_target.assert_whole(disk)

    def test_a_network_that_always_flips_a_bit_ends_it(
        self, s3_target: S3Target, disk: Path
    ) -> None:
        """Scenario 5: ContentDamaged, nothing is left."""
        s3_target.proxy.script(Fault(flip=MiB), when=is_put_part(3), times=FOR_EVER)
        with pytest.raises(ContentDamaged, match="part 3"):
            s3_target.export(disk)
        assert s3_target.sent().count(3) == 3
        s3_target.assert_clean()

    @pytest.mark.parametrize("fault", [OssFault(flipped=True), OssFault(wrong_crc=True)])
    def test_a_crc_of_oss_that_differs_costs_one_part(
        self, oss_target: OssTarget, small: Path, fault: OssFault
    ) -> None:
        """Scenario 5: a right object; OSS takes what comes, and tells its CRC."""
        oss_target.server.faults.add("UploadPart", fault)
        assert oss_target.export(small).retries == 1
        oss_target.assert_whole(small)

    def test_a_crc_of_oss_that_always_differs_ends_it(
        self, oss_target: OssTarget, small: Path
    ) -> None:
        """Scenario 5: ContentDamaged, nothing is left."""

        def always(operation: str, request: OssRequest) -> OssFault | None:
            third = operation == "UploadPart" and request.params["partNumber"] == "3"
            return OssFault(flipped=True) if third else None

        oss_target.server.faults.rule = always
        with pytest.raises(ContentDamaged, match="part 3"):
            oss_target.export(small)
        assert oss_target.sent().count(3) == 3
        oss_target.assert_clean()

    def test_a_buffer_that_changed_is_never_sent_twice(
        self, s3_target: S3Target, disk: Path
    ) -> None:
        """Scenario 6: OutOfResources, as memory cannot be trusted; nothing is left."""

        def spoil(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "put_part" and arguments[1] == 3:
                next(arguments[2].views())[0] ^= 1

        store = s3_target.store.open(BUCKET)
        sink = sink_to(s3_target, Watched(store, before=spoil))
        with pytest.raises(OutOfResources, match="part 3 changed in memory"):
            fill(sink, disk.read_bytes())
        sink.abort()
        store.close()
        assert s3_target.sent().count(3) == 1
        s3_target.assert_clean()

    def test_a_wrong_checksum_of_the_whole_is_refused(
        self, s3_target: S3Target, disk: Path
    ) -> None:
        """Scenario 14: ContentDamaged, the upload is alive until it is aborted."""

        class Mistaken(Watched):
            def complete(self, *arguments: Any, **named: Any) -> ObjectInfo:
                made: ObjectInfo = self._store.complete(
                    *arguments, **{**named, "crc": named["crc"] ^ 1}
                )
                return made

        store = s3_target.store.open(BUCKET)
        sink = sink_to(s3_target, Mistaken(store))
        with pytest.raises(ContentDamaged):
            fill(sink, disk.read_bytes())
        s3_target.assert_kept()
        sink.abort()
        store.close()
        s3_target.assert_clean()

    def test_a_wrong_checksum_of_the_whole_in_oss_undoes_it(
        self, oss_target: OssTarget, small: Path
    ) -> None:
        """Scenario 14: ContentDamaged, nothing is left; OSS does not verify by itself."""
        oss_target.server.faults.add("CompleteMultipartUpload", OssFault(wrong_crc=True))
        with pytest.raises(ContentDamaged, match="deleted it"):
            oss_target.export(small)
        oss_target.assert_clean()


class TestRights:
    """Credentials and clocks."""

    def test_a_token_that_expires_is_renewed(
        self, oss_target: OssTarget, small: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Scenario 7: a right object, by the upload that was under way."""
        monkeypatch.delenv("OSS_ACCESS_KEY_ID")
        server, soon = oss_target.server, time.time() + 3600
        first, second = Key("one", "token-1", soon), Key("two", "token-2", soon)
        server.keys = {"STS.1": first, "STS.2": second}

        def expire(operation: str, request: OssRequest) -> None:
            if operation == "UploadPart" and request.params["partNumber"] == "4":
                server.keys["STS.1"] = replace(first, expires=time.time() - 1)
                instance.current = ("STS.2", second)

        server.faults.rule = expire
        with EcsMetadata("exporter", ("STS.1", first)) as instance:
            role = replace(oss_target.store, metadata_url=instance.endpoint_url)
            oss_target.export(small, store=role)
        oss_target.assert_whole(small)
        outcomes = {entry.outcome for entry in server.log}
        assert outcomes == {"200", "NoSuchKey", "SecurityTokenExpired"}
        assert oss_target.count("InitiateMultipartUpload") == 1

    def test_a_token_that_expires_for_good_is_told(
        self, s3_target: S3Target, disk: Path
    ) -> None:
        """Scenario 7: CredentialsExpired, nothing is left."""
        expired = Fault(instead=error(400, "ExpiredToken"))
        s3_target.proxy.script(expired, when=is_put_part(3), times=FOR_EVER)
        with pytest.raises(CredentialsExpired, match="ExpiredToken"):
            s3_target.export(disk)
        assert s3_target.sent().count(3) == 1
        s3_target.assert_clean()

    def test_a_wrong_clock_is_told_at_once(self, oss_target: OssTarget, small: Path) -> None:
        """Scenario 8: StoreRefused, nothing was begun and nothing tried again."""
        oss_target.server.clock_offset = 1200
        with pytest.raises(StoreRefused, match="the clock of this machine is wrong"):
            oss_target.export(small)
        assert [entry.operation for entry in oss_target.server.log] == ["HeadObject"]
        oss_target.assert_clean()

    def test_a_clock_that_goes_wrong_on_the_way_is_told(
        self, s3_target: S3Target, disk: Path
    ) -> None:
        """Scenario 8: StoreRefused, no storm of requests, nothing is left."""
        skewed = Fault(instead=error(403, "RequestTimeTooSkewed"))
        s3_target.proxy.script(skewed, when=is_put_part(), times=FOR_EVER)
        with pytest.raises(StoreRefused, match="RequestTimeTooSkewed"):
            s3_target.export(disk)
        assert len(set(s3_target.sent())) == len(s3_target.sent()) <= 4
        s3_target.assert_clean()


class TestFinish:
    """The end, which must not be done twice, nor taken for another's."""

    @pytest.mark.parametrize(
        "answer",
        [
            *UNANSWERED,
            pytest.param(Fault(afterwards=error(412, "PreconditionFailed")), id="412"),
            pytest.param(Fault(afterwards=error(409, "ConditionalRequestConflict")), id="409"),
            pytest.param(Fault(afterwards=error(404, "NoSuchUpload")), id="NoSuchUpload"),
            pytest.param(Fault(afterwards=error(503, "SlowDown")), id="SlowDown"),
        ],
    )
    def test_our_own_object_is_recognised(
        self, s3_target: S3Target, disk: Path, answer: Fault
    ) -> None:
        """Scenario 13: a right object."""
        s3_target.proxy.script(answer, when=is_complete)
        s3_target.export(disk)
        s3_target.assert_whole(disk)

    def test_our_own_object_is_recognised_where_there_was_one(
        self, s3_target: S3Target, disk: Path
    ) -> None:
        """Scenario 13: a right object, in the place of the old one."""
        s3_target.put(b"to be replaced")
        s3_target.proxy.script(Fault(lose_reply=True), when=is_complete)
        s3_target.export(disk, clobber=True)
        s3_target.assert_whole(disk)

    @pytest.mark.parametrize("answer", UNANSWERED_BY_OSS)
    def test_our_own_object_in_oss_is_recognised(
        self, oss_target: OssTarget, small: Path, answer: OssFault
    ) -> None:
        """Scenario 13: a right object."""
        oss_target.server.faults.add("CompleteMultipartUpload", answer)
        oss_target.export(small)
        oss_target.assert_whole(small)

    def test_our_own_object_in_oss_is_recognised_though_no_answer_tells(
        self, oss_target: OssTarget, small: Path
    ) -> None:
        """Scenario 13: a right object; the repeated request meets a 404 without a reason."""
        busy = OssFault(status=503, code="SlowDown")

        def rule(operation: str, request: OssRequest) -> OssFault | None:
            if operation == "CompleteMultipartUpload" and completing:
                if len(completing) == 2:  # while we look for the object
                    oss_target.server.faults.add("HeadObject", busy)
                completing.pop()
                return OssFault(blank=True)
            return None

        completing = [1, 2]
        oss_target.server.faults.rule = rule
        oss_target.export(small, clobber=True)
        assert completing == []
        oss_target.assert_whole(small)

    @pytest.mark.parametrize("answered", [True, False])
    def test_another_writers_object_stays(
        self, s3_target: S3Target, disk: Path, answered: bool
    ) -> None:
        """Scenario 13: OutputExists, nothing of ours is left; the service noticed."""
        put = before(is_complete, lambda: s3_target.put(b"another writer's"))
        s3_target.proxy.script(Fault(), when=put)
        s3_target.proxy.script(Fault(lose_reply=not answered), when=is_complete)
        with pytest.raises(OutputExists, match="PreconditionFailed" if answered else "exists"):
            s3_target.export(disk)
        assert s3_target.objects() == {"": b"another writer's"}
        assert s3_target.unfinished() == []

    def test_another_writers_object_stays_in_oss(
        self, oss_target: OssTarget, small: Path
    ) -> None:
        """Scenario 13: OutputExists, nothing of ours is left; the service noticed."""

        def interfere(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "complete":
                store.put(oss_target.key, b"another writer's", {}, exclusive=True)

        store = oss_target.store.open(BUCKET)
        sink = sink_to(oss_target, Watched(store, before=interfere))
        with pytest.raises(OutputExists, match="FileAlreadyExists"):
            fill(sink, small.read_bytes())
        sink.abort()
        store.close()
        assert oss_target.objects() == {"": b"another writer's"}
        assert oss_target.unfinished() == []

    def test_an_error_in_a_200_is_an_error(self, s3_target: S3Target, disk: Path) -> None:
        """Scenario 14: a right object, after a second try."""
        s3_target.proxy.script(Fault(instead=error(200, "InternalError")), when=is_complete)
        assert s3_target.export(disk).retries == 1
        s3_target.assert_whole(disk)
        assert len(s3_target.log(is_complete)) == 2

    def test_a_slow_finish_is_waited_for(self, s3_target: S3Target, disk: Path) -> None:
        """Scenario 14: a right object, and nobody asks twice for it."""
        s3_target.proxy.script(Fault(stall=2.5), when=is_complete)
        impatient = s3_target.options(connect_timeout=1, read_timeout=1)
        s3_target.export(disk, store=impatient)
        s3_target.assert_whole(disk)
        assert len(s3_target.log(is_complete)) == 1

    @pytest.mark.parametrize("moment", [is_put_part(4), is_complete], ids=["part 4", "end"])
    def test_an_upload_that_is_aborted_from_outside_is_an_error(
        self, s3_target: S3Target, disk: Path, moment: Any
    ) -> None:
        """Scenario 9: UploadGone, nothing is left."""
        s3_target.proxy.script(Fault(), when=before(moment, s3_target.abort_all))
        with pytest.raises(UploadGone, match="NoSuchUpload"):
            s3_target.export(disk)
        s3_target.assert_clean()

    def test_an_upload_of_oss_that_is_aborted_from_outside_is_an_error(
        self, oss_target: OssTarget, small: Path
    ) -> None:
        """Scenario 9: UploadGone, nothing is left."""
        server = oss_target.server

        def abort(operation: str, request: OssRequest) -> None:
            if operation == "UploadPart" and request.params["partNumber"] == "7":
                for upload in list(server.uploads.values()):
                    server.state.abort(upload)

        server.faults.rule = abort
        with pytest.raises(UploadGone, match="NoSuchUpload"):
            oss_target.export(small)
        oss_target.assert_clean()

    def test_of_two_exporters_one_wins(
        self, s3_target: S3Target, disk: Path, sparse: Path
    ) -> None:
        """Scenario 20: the first to finish; OutputExists for the other, no trace of it."""

        def overtake() -> None:
            imgconv.convert(sparse, s3_target.url, store=s3_target.direct)

        s3_target.proxy.script(Fault(), when=before(is_complete, overtake))
        with pytest.raises(OutputExists):
            s3_target.export(disk)
        s3_target.assert_whole(sparse)


class TestZeroCopies:
    """Parts that the store is to copy, and does not."""

    def test_copies_save_the_wire(self, s3_target: S3Target, sparse: Path) -> None:
        """What the others are compared with: a right object."""
        assert s3_target.export(sparse).copied_parts >= 3
        s3_target.assert_whole(sparse)

    @pytest.mark.parametrize(
        ("status", "code"),
        [(403, "AccessDenied"), (405, "MethodNotAllowed"), (501, "NotImplemented")],
    )
    @pytest.mark.parametrize("operation", [is_copy_part, is_put])
    def test_refused_copies_are_sent(
        self, s3_target: S3Target, sparse: Path, status: int, code: str, operation: Any
    ) -> None:
        """Scenario 19: a right object."""
        refused = Fault(instead=error(status, code))
        s3_target.proxy.script(refused, when=operation, times=FOR_EVER)
        report = s3_target.export(sparse)
        s3_target.assert_whole(sparse)
        assert report.copied_parts == 0
        assert set(s3_target.sent()) == set(range(1, 8))

    def test_a_helper_that_vanishes_is_done_without(
        self, s3_target: S3Target, sparse: Path
    ) -> None:
        """Scenario 19: a right object."""
        copies: list[object] = []

        def is_third_copy(request: Any) -> bool:
            copies.extend([request] if is_copy_part(request) else [])
            return len(copies) == 3

        vanish = before(is_third_copy, lambda: s3_target.delete(".imgconv-zeros"))
        s3_target.proxy.script(Fault(), when=vanish)
        report = s3_target.export(sparse, concurrency=1)
        s3_target.assert_whole(sparse)
        assert report.copied_parts == 2

    def test_a_helper_that_may_not_be_deleted_is_told(
        self, s3_target: S3Target, sparse: Path
    ) -> None:
        """Scenario 19: a warning that names the helper; the object is right."""
        s3_target.proxy.script(
            Fault(instead=error(403, "AccessDenied")),
            when=lambda request: request.method == "DELETE",
            times=FOR_EVER,
        )
        (warning,) = s3_target.export(sparse).warnings
        assert "imgconv-zeros: delete: AccessDenied" in warning
        s3_target.delete(".imgconv-zeros")
        s3_target.assert_whole(sparse)
