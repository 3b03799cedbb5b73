"""Images that validators are to judge, and what these are made of.

They come from qemu-img or are built byte by byte, not by the code that the validators are
meant to judge.
"""
