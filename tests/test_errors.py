"""The error tree is what its documentation says."""

import pickle

import pytest

import imgconv.errors as errors


def tree(kind: type[errors.ImgconvError]) -> list[type[errors.ImgconvError]]:
    return [kind, *(c for child in kind.__subclasses__() for c in tree(child))]


ALL = [kind for kind in tree(errors.ImgconvError) if kind.__module__ == errors.__name__]


def test_codes_are_unique_and_every_class_says_what_it_means() -> None:
    assert len({kind.code for kind in ALL}) == len(ALL)
    for kind in ALL:
        assert kind.__doc__
        assert "code" in vars(kind)


def test_the_drawn_tree_is_the_real_one() -> None:
    assert errors.__doc__ is not None
    for kind in ALL:
        assert f" {kind.__name__}" in errors.__doc__


LATER = (
    errors.StoreUnavailable,
    errors.StoreThrottled,
    errors.CredentialsExpired,
    errors.WorkersLost,
)


def test_exit_codes_tell_usage_from_failure_and_failure_from_try_again() -> None:
    for kind in ALL:
        if issubclass(kind, errors.UsageError):
            assert kind.exit_status == 2
        elif kind in LATER:
            assert kind.exit_status == 75
        elif kind is errors.CheckUnsupported:
            assert kind.exit_status == 63  # as of qemu-img check
        elif kind is not errors.Cancelled:
            assert kind.exit_status == 1


def test_messages_carry_what_and_where() -> None:
    assert str(errors.ReadFailed("d", 7, "I/O error")) == (
        "d: cannot read at offset 7: I/O error"
    )
    assert "ends at offset 7" in str(errors.SourceTruncated("d", 7, 9))
    assert str(errors.WriteFailed("d", "No space left")) == "d: cannot write: No space left"
    assert "at offset 5" in str(errors.WriteFailed("d", "No space left", 5))
    message = str(errors.LimitExceeded("vhd", 3, 2, ("raw", "qcow2")))
    assert message.endswith("limit of vhd, 2 bytes; it would fit in raw or qcow2")


@pytest.mark.parametrize(
    "error",
    [
        errors.ReadFailed("disk", 512, "Input/output error"),
        errors.SourceTruncated("disk", 512, 1024),
        errors.ImageMalformed("disk", "vhd", 512, "no footer"),
        errors.WriteFailed("disk", "No space left", 512),
        errors.LimitExceeded("vhd", 2, 1, ("qcow2",)),
        errors.StoreThrottled("slow down", 2.5),
        errors.WorkersLost("gone"),
    ],
    ids=lambda error: error.code,
)
def test_an_error_arrives_from_another_process_as_it_was(error: errors.ImgconvError) -> None:
    error.add_note("on worker a:1")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
