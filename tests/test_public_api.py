"""What `import imgconv` promises."""

import inspect

import imgconv
import imgconv.questions


def test_all_is_importable_and_documented() -> None:
    assert dir(imgconv) == sorted(imgconv.__all__)
    for name in imgconv.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(imgconv, name))


def test_the_lazy_table_covers_all() -> None:
    lazy = {name for names in imgconv._HOMES.values() for name in names}
    assert lazy | {"open", "__version__"} == set(imgconv.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(imgconv, "konvert")


def test_every_parameter_of_convert_is_explained() -> None:
    text = inspect.getdoc(imgconv.convert)
    assert text is not None
    for name in inspect.signature(imgconv.convert).parameters:
        assert f"{name}:" in text


def test_signatures() -> None:
    """A change here is a change for users; then say so in the changelog."""
    assert list(inspect.signature(imgconv.convert).parameters) == [
        "source",
        "target",
        "options",
        "source_format",
        "read",
        "identity",
        "threads",
        "clobber",
        "store",
        "upload",
        "verify",
        "progress",
        "cancelled",
    ]
    assert list(inspect.signature(imgconv.measure).parameters) == [
        "source",
        "options",
        "exact",
        "source_format",
        "read",
        "threads",
        "store",
        "progress",
        "cancelled",
    ]
    assert list(inspect.signature(imgconv.compare).parameters) == [
        "first",
        "second",
        "strict",
        "source_format",
        "other_format",
        "read",
        "threads",
        "store",
        "progress",
        "cancelled",
    ]
    names = list(inspect.signature(imgconv.open).parameters)
    assert names == ["source", "source_format", "read", "store"]
