"""Options: text to objects, and the rules that hold for library callers as well."""

import re
from collections.abc import Callable

import pytest

import imgconv
from imgconv.errors import OptionError, UsageError
from imgconv.formats import TABLE, format_class, format_from_text, format_names
from imgconv.names import NAMES, canonical, of_file
from imgconv.options import describe_options


def test_text_becomes_options() -> None:
    assert format_from_text("qcow2", "cluster_size=4k,compat=0.10") == imgconv.Qcow2(
        cluster_size=4096, compat="0.10"
    )
    assert format_from_text("vpc", "subformat=fixed,azure=on") == imgconv.Vhd(
        subformat="fixed", azure=True
    )
    assert format_from_text("img") == imgconv.Raw()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("qcow2", "cluster_sice=4k", "unknown option 'cluster_sice'.*cluster_size"),
        ("qcow2", "cluster_size", "needs a value: cluster_size=512..2M"),
        ("qcow2", "cluster_size=big", "'big' is not a size"),
        ("qcow2", "refcount_bits=many", "refcount_bits"),
        ("qcow2", "cluster_size=4k,cluster_size=8k", "given twice"),
        ("vhd", "azure=maybe", "neither on nor off"),
        ("raw", "x=1", "options: none"),
    ],
)
def test_bad_text_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        format_from_text(name, text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: imgconv.Qcow2(cluster_size=256), "power of two from 512 to 2M"),
        (lambda: imgconv.Qcow2(cluster_size=4 << 20), "power of two from 512 to 2M"),
        (lambda: imgconv.Qcow2(cluster_size=5000), "power of two from 512 to 2M"),
        (lambda: imgconv.Qcow2(refcount_bits=0), "power of two from 1 to 64"),
        (lambda: imgconv.Qcow2(refcount_bits=12), "power of two from 1 to 64"),
        (lambda: imgconv.Qcow2(refcount_bits=128), "power of two from 1 to 64"),
        (lambda: imgconv.Qcow2(compat="0.10", refcount_bits=8), "compat=0.10 has only 16"),
        (lambda: imgconv.Qcow2(compat="2.0"), r"must be one of 1.1\|0.10"),
        (lambda: imgconv.Vhd(subformat="thin"), r"must be one of dynamic\|fixed"),
        (lambda: imgconv.Vhd(azure=True), "needs subformat=fixed"),
        (
            lambda: imgconv.Vhd(subformat="fixed", azure="off"),
            "azure='off': must be of type bool",
        ),
        (lambda: imgconv.Qcow2(cluster_size="4k"), "cluster_size='4k': must be of type int"),
        (lambda: imgconv.Qcow2(refcount_bits=True), "must be of type int"),
        (lambda: imgconv.Vmdk(extent_name=b"x"), "must be of type str"),
        (lambda: imgconv.Vdi(subformat="static"), r"must be one of dynamic\|fixed"),
        (lambda: imgconv.Vhdx(block_size=3 << 20), "must be a power of two from 1048576"),
        (lambda: imgconv.Vhdx(block_size=512 << 20), "must be a power of two from 1048576"),
        (lambda: imgconv.Vmdk(subformat="flat"), "must be one of monolithicSparse"),
        (lambda: imgconv.Vmdk(adapter_type="sata"), "must be one of lsilogic"),
        (lambda: imgconv.Vmdk(extent_name="../x.vmdk"), "bare file name"),
        (lambda: imgconv.Vmdk(extent_name='a"b'), "bare file name"),
        *[
            (lambda name=name: imgconv.Vmdk(extent_name=name), "bare file name")
            for name in ("", ".", "..", "json:{}", "d\u00efsk.vmdk", "x.vmdk ")
        ],
        (lambda: imgconv.Vmdk(extent_name="a\nRW 1 FLAT b"), "bare file name"),
    ],
)
def test_bad_values_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


def test_a_misspelt_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        imgconv.Qcow2(clustersize=4096)  # type: ignore[call-arg]


def test_unknown_formats_are_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match=", ".join(map(re.escape, TABLE))):
        format_class("iso")


def test_the_tables_agree() -> None:
    assert set(NAMES) == set(TABLE) == set(format_names())
    for name in TABLE:
        assert format_class(name).name == name
        assert describe_options(format_class(name)) is not None
    assert canonical("vpc") == "vhd"
    assert canonical("nonsense") == "nonsense"
    assert of_file("/a.iso/b.VMDK") == "vmdk"
    assert of_file("b.iso") is of_file("b.qcow2.gz") is of_file("b.gz") is None
    assert of_file("/a/.raw") is of_file(".tgz") is None
    assert of_file("b.raw.gz") == "raw.gz"
    assert of_file("b.img.zst") == "raw.zst"
    assert of_file("b.raw.tar.gz") == of_file("b.tgz") == "raw.tar.gz"
    extensions = [e for n in NAMES.values() for e in n.extensions]
    assert len(set(extensions)) == len(extensions)
