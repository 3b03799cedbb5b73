"""On-disk records, one module per format, shared by readers and writers.

Records only: field names of the specifications, byte offsets in comments, pack and
unpack. Nothing here reads a file or decides anything.
"""
