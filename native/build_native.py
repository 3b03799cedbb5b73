"""The cffi builder of imgconv._native (API mode, abi3 where cffi offers it)."""

import os
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import make_crc_tables  # noqa: E402  (lives beside this file, outside any package)

MODULES = ("kernel", "zero", "repeats", "frames", "crc", "io", "target", "ahead")
SOURCES = sorted(path.name for path in HERE.glob("*.c") if not path.name.startswith("test_"))
WARNINGS = ("-Wall", "-Wextra")

make_crc_tables.write(HERE / "generated")

ffibuilder = FFI()
ffibuilder.cdef((HERE / "imgconv.cdef.h").read_text())
ffibuilder.set_source(
    "imgconv._native",
    "".join(f'#include "{name}.h"\n' for name in MODULES),
    # setuptools wants paths relative to the project's root.
    sources=[os.path.join("native", name) for name in SOURCES],
    include_dirs=["native"],
    extra_compile_args=["-O3", "-std=c11", *WARNINGS],
)
