"""Sources: positional readers of guest disks."""
