"""Only what pyproject.toml cannot say: the module that cffi builds."""

from setuptools import setup

setup(cffi_modules=["native/build_native.py:ffibuilder"])
