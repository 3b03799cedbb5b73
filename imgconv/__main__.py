"""`python -m imgconv`, and the `imgconv` command."""

import os
import sys


def main() -> int:
    """Run the command line; Ctrl-C while it is still being loaded is no traceback either."""
    try:
        _have_standard_streams()
        # Or else numpy, when it is loaded, starts a thread of OpenBLAS for each processor:
        # 30 ms for linear algebra that no conversion does.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        import gc

        # Loading modules makes objects, not garbage; looking for some took 15 ms.
        gc.set_threshold(50_000)
        from imgconv import cli

        status = cli.main()
        gc.freeze()  # nor need what ends with the process be looked through
        return status
    except KeyboardInterrupt:
        return 130


def _have_standard_streams() -> None:
    """Fill in standard streams that were closed.

    Otherwise the next file opened would become standard output, and messages would end in
    an image. What stands in for descriptor 1 cannot be written: an image sent there is lost,
    and that is an error.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if fd == 2 else os.O_RDONLY)
    nowhere = open(os.devnull, "w")  # noqa: SIM115  (stays open for as long as we run)
    sys.stdout = sys.stdout or nowhere
    sys.stderr = sys.stderr or nowhere


if __name__ == "__main__":
    sys.exit(main())
