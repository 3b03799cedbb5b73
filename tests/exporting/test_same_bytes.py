"""Two exports of one image make the same bytes, so the same ETags, under the same names."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from support.exporting import BUCKET, Place
from support.faults import Fault
from support.oss_server import OssServer

import imgconv as library
from imgconv.objectstore import PartStore
from imgconv.sinks.multipart import MultipartSink
from imgconv.stretch import Stretch
from imgconv.units import KiB

CONTENT = bytes(range(256)) * 1024


def request() -> library.ExportRequest:
    return library.ExportRequest(image_id="m-1", bucket=BUCKET)


class TestAnEarlierTask:
    """One that failed after its first object was there, before another one succeeded."""

    @pytest.fixture
    def earlier(self, pair: dict[str, Path], state: Path, oss: Place) -> library.ExportTask:
        data = pair["data:xvdb"]
        moment = os.stat(data).st_mtime_ns
        with pytest.raises(library.IncorrectImageStatus):
            library.export(
                request(),
                pair,
                store=oss.store,
                state=state,
                on_accepted=lambda task: os.utime(data, ns=(1, 1)),
            )
        os.utime(data, ns=(moment, moment))
        (failed,) = library.export_tasks(state=state)
        assert oss.objects("") == {}
        library.export(request(), pair, store=oss.store, state=state)
        return library.export_task(failed.task_id, state=state)

    def test_remembers_no_objects(self, earlier: library.ExportTask) -> None:
        assert [disk.result for disk in earlier.state().disks] == [None, None]

    def test_is_cancelled(self, earlier: library.ExportTask, oss: Place) -> None:
        made = oss.objects("")
        assert earlier.cancel().status == "Cancelled"
        assert oss.objects("") == made
        assert len(made) == 3

    def test_is_resumed(self, earlier: library.ExportTask, oss: Place) -> None:
        made = oss.objects("")
        with pytest.raises(library.ExportImageFailed, match="exists already"):
            earlier.run()
        assert oss.objects("") == made
        assert len(made) == 3


def test_an_upload_that_another_task_keeps_is_left_to_it(
    pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer
) -> None:
    """An object carries what its upload was begun with: the id of that task."""
    oss_server.faults.rule = lambda operation, request: (
        Fault(status=400) if request.params.get("partNumber") == "3" else None
    )
    upload = library.UploadOptions(part_size=100 * KiB)
    settings = library.ExportSettings(keep=True, upload=upload)
    with pytest.raises(library.ExportImageFailed):
        library.export(request(), pair, store=oss.store, state=state, settings=settings)
    oss_server.faults.rule = lambda operation, request: None
    (kept,) = library.export_tasks(state=state)
    assert oss.uploads("") == ["m-1_system.raw"]
    task = library.export(request(), pair, store=oss.store, state=state, settings=settings)
    with closing(oss.store.open(BUCKET)) as store:
        found = store.head("m-1_system.raw")
        assert found is not None
        assert found.metadata["imgconv-task"] == task.task_id
    made = oss.objects("")
    assert library.export_task(kept.task_id, state=state).cancel().status == "Cancelled"
    assert oss.objects("") == made
    assert len(made) == 3
    assert oss.uploads("") == []


def test_an_upload_begun_elsewhere_goes_on(
    pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer
) -> None:
    """Another machine knows nothing of our locks, nor we of its."""
    oss_server.faults.rule = lambda operation, request: (
        Fault(status=400) if request.params.get("partNumber") == "3" else None
    )
    settings = library.ExportSettings(upload=library.UploadOptions(part_size=100 * KiB))
    with closing(oss.store.open(BUCKET)) as store:
        theirs = store.begin("m-1_system.raw", {})
        with pytest.raises(library.ExportImageFailed):
            library.export(request(), pair, store=oss.store, state=state, settings=settings)
        assert [upload.id for upload in store.list_uploads("")] == [theirs.id]
    begun = [e for e in oss_server.log if e.operation == "InitiateMultipartUpload"]
    assert len(begun) == 2
    assert [path.name for path in state.parent.iterdir()] == [state.name]


class TestRetracting:
    """What an upload has published is deleted as long as it is what it published."""

    def sink(self, store: PartStore, *, resume: bool = False) -> MultipartSink:
        options = library.UploadOptions(part_size=100 * KiB, resume=resume)
        sink = MultipartSink(store, "k", head_size=0, bound=len(CONTENT), options=options)
        sink.put(Stretch.of(0, [memoryview(CONTENT)]))
        return sink

    def test_another_of_the_same_bytes_stays(self, oss: Place) -> None:
        with closing(oss.store.open(BUCKET)) as store:
            first = self.sink(store)
            first.commit(len(CONTENT))
            store.delete("k")
            second = self.sink(store)
            second.commit(len(CONTENT))
            assert first.report
            assert second.report
            assert first.report.etag == second.report.etag
            assert first.retract() == "oss://exports/k: is another's, and was left"
            assert oss.objects("") == {"k": CONTENT}
            assert second.retract() == "oss://exports/k: was removed again"
            assert oss.objects("") == {}

    def test_one_taken_up_from_the_stores_list_goes(self, oss: Place) -> None:
        with closing(oss.store.open(BUCKET)) as store:
            self.sink(store, resume=True).suspend()
            sink = self.sink(store, resume=True)
            sink.commit(len(CONTENT))
            assert sink.retract() == "oss://exports/k: was removed again"
            assert oss.objects("") == {}
