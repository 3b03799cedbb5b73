"""Golden digests: the bytes of one small disk in every format.

A digest that moves means that a customer's resumed upload would no longer match the parts
it has sent, and that every cached image changes. That may be wanted; then say so in the
changelog. Compressed variants are left out: their bytes belong to the libraries in use.
"""

import hashlib
import random

import pytest
from support import engine
from support.variants import COMPRESSED, VARIANTS

from imgconv.formats.base import Format
from imgconv.units import KiB, MiB

GOLDEN: dict[str, str] = {
    "raw": "33472898111d8558f4bec07d52696508633ac5310058d9fd5ccad59adc968300",
    "vhd": "2523c305a8389f8e257b360d636304018e92a4ffa0fc7315df84d43f3eb835e6",
    "vhd-fixed": "6291d6d0865e4e41efa0e30c45a2b88fb1e8bbdbc1a4aa59675bdf332430a2c9",
    "vhd-azure": "f3810467350ccf719eda843b81a793e9a26c68bacefeef1798c30cfbeb30dc4d",
    "vdi": "802cb2b20c442befadfb3198ddf364db2aa9d80756500892a3b30f35aa614521",
    "vdi-fixed": "b88eba29e74ac696bd51ad39ce3cb8f3ce067fee0441c57f75e137d7c6ac1c3e",
    "vhdx": "5db0a0e5853274a00f8236fe83e5d73959fd945cd7cf28ea2502ff5bce957d86",
    "vhdx-fixed": "3ce51213aa478608bd0d3587bb912eccca43782faec838557970c73aab7e30af",
    "vhdx-8m": "5cac1a9d0ca3bc2c9f46a4292ed7263dd5567ef03cdbcf6fda7ad7a22a67f841",
    "vhdx-256m": "356d9a248163ce2c88fd07b978429d82f48d0212455dc62cc9eebaad6088068f",
    "vmdk": "2af4544b58cb89da48ed4f3c7c986b0dc1a8007e93c743d74882342694510abc",
    "vmdk-ide": "a05013342b9704a3cc4cd652564a8741820733b663980ba54d06e35f4c2bbaff",
    "qcow2": "a49052a68574d644fa158e7bced18fce99e1414bdb570c158a7a396e8db184b0",
    "qcow2-v2": "b55766f05cc3b76e6a94bdbe1e292a2ca7fb865ebd26b4c1def3267dc6560ed0",
    "qcow2-v2-512": "00e8b4b645e10c9078482b6bf7fb0ce183ccc4ec2321b1941b1982c941b92797",
    "qcow2-512": "d39ca9e53120fafb01572b0ae3c1a1fb6329693ba3cdb14f66be21efa252fb67",
    "qcow2-1024": "40d78cc14a43545f3a5a1d6c8b897a809987a1b8f4c727723db782cd285dfe46",
    "qcow2-4096": "d82d32822d348ba119b63d3fce7077006affbd5ee090d6b58eed61fb64d4efef",
    "qcow2-32768": "6c7c19ee878d871fde63ac4ea6f1b74cfd21e4711556eb3c3e8aba8a66475bb4",
    "qcow2-2097152": "c31a45338955f029649ac5c72f2ebb07703cb80ed100f4b9e04e11dc0b100279",
    "qcow2-refcount1": "14cfac559660865656a0281ac644c2599f6dbdcbb43ea3d03752afdd30acb940",
    "qcow2-refcount2": "0607a528463a55375a1fae41d4d2303ef20ac65c8b27353048593d42b7e285ba",
    "qcow2-refcount4": "98db292a510a98c9a909debda774cb369319648576c00fbd9f9c91ca961e4685",
    "qcow2-refcount8": "d949c6e7f71c43f99d75b36fff50439948341b0c37fb82f9bfbee95e88e7393e",
    "qcow2-refcount32": "26e23170b2d71f55b04ba4e337326279783e371488bbbcf231010632ebdee587",
    "qcow2-refcount64": "0d7d5a788b8f0b697ebefbca194cb5a31a951be27e9d149d28e4122101802a6b",
}


def disk() -> engine.MemorySource:
    rng = random.Random(11)
    content = bytearray(5 * MiB + 512)
    for at in (0, 300 * KiB, 2 * MiB, 5 * MiB):
        content[at : at + 5000] = rng.randbytes(5000)[: len(content) - at]
    return engine.MemorySource(bytes(content))


def test_every_uncompressed_variant_has_a_digest() -> None:
    assert set(GOLDEN) == set(VARIANTS) - set(COMPRESSED)


@pytest.mark.parametrize("variant", GOLDEN)
def test_the_bytes_are_what_they_always_were(variant: str) -> None:
    options: Format = VARIANTS[variant]
    assert hashlib.sha256(engine.one_pass(disk(), options)).hexdigest() == GOLDEN[variant]
