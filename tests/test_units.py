import pytest

from imgconv.units import div_ceil, format_size, is_power_of_two, parse_size, round_up


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("64k", 65536), ("64K", 65536), ("2M", 2 << 20), ("1GiB", 1 << 30)]
    + [("3 TB", 3 << 40), ("7b", 7), ("1e", 1 << 60)],
)
def test_sizes_people_write(text: str, size: int) -> None:
    assert parse_size(text) == size


NO_SIZES = ["", "k", "-1", "1.5M", "64kk", "0x10", "1 M M", "\uff14k", "9" * 5000]


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1 << 40, "1 TiB")]
    + [(1 << 60, "1 EiB"), (1 << 71, "2048 EiB")],
)
def test_sizes_people_read(size: int, text: str) -> None:
    assert format_size(size) == text


def test_rounding() -> None:
    assert [div_ceil(n, 4) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert [round_up(n, 512) for n in (0, 1, 512, 513)] == [0, 512, 512, 1024]
    assert [n for n in range(-1, 17) if is_power_of_two(n)] == [1, 2, 4, 8, 16]
