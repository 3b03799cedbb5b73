"""Readers under any bytes: they read them or refuse them, and do nothing else."""
