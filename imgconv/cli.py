"""The command line: runs a command, turns errors into one line and an exit code."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from imgconv import terminal
from imgconv.commands import COMMANDS, INSTEAD, run_command
from imgconv.errors import Cancelled, ImgconvError, OutOfResources, SourceUnreadable, UsageError

DEFECT = 70
_WORDS: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminated",
}
_arrived: list[int] = []  # signals that ask us to end


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        _watch_signals()
        return _run(words)
    except ImgconvError as error:
        if debug:
            raise
        return _fail(error, words)
    except KeyboardInterrupt as error:
        return _stopped(signal.SIGINT, error, words)
    except Terminated as error:
        return _stopped(error.number, error, words)
    except MemoryError:
        return _fail(OutOfResources("out of memory"), words)
    except Exception as error:
        if _arrived:
            # While numpy is being loaded, C code makes an ImportError of it.
            return _stopped(_arrived[0], error, words)
        if debug:
            raise
        kind = type(error).__name__
        terminal.say(f"internal error: {kind}: {error}; --debug shows where")
        return DEFECT


def _watch_signals() -> None:
    _arrived.clear()
    for number in _WORDS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)  # otherwise nohup's choice stands


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    _arrived.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def _stopped(number: int, error: BaseException, words: list[str]) -> int:
    message = f"{_WORDS[number]}{_notes(error)}"
    terminal.say(message)
    _say_in_json(Cancelled.code, message, words)
    return 128 + number


def _fail(error: ImgconvError, words: list[str]) -> int:
    message = f"{error}{_notes(error)}"
    terminal.say(f"error: {message}")
    _say_in_json(error.code, message, words)
    status = error.exit_status
    return INSTEAD.get((words[0], status), status) if words else status


def _notes(error: BaseException) -> str:
    return "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def _say_in_json(code: str, message: str, words: list[str]) -> None:
    if "--json" in words:
        record = {"code": code, "message": message}
        terminal.print_json({"error": record}, to_stderr=True)


def _run(words: list[str]) -> int:
    if not words or words[0] in COMMANDS or words[0] in ("-h", "--help", "--version"):
        return _run_named(words)
    words.insert(0, "convert")
    try:
        return _run_named(words)
    except (UsageError, SourceUnreadable) as error:
        if slip := _slip(words[1]):
            error.add_note(slip)
        raise


def _slip(word: str) -> str:
    """Return what there is to say of a word that may have been meant as a command."""
    if not word.replace("-", "").isalpha() or word.startswith("-") or os.path.lexists(word):
        return ""
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, 1)
    choice = f"did you mean {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
    return f"{word!a} is neither a file nor a command; {choice}"


def _run_named(words: list[str]) -> int:
    if any(word.startswith(("-o", "--store")) for word in words):
        from imgconv.commands.option_help import option_help, wants_option_help

        if wants_option_help(words):
            return option_help(words)
    return run_command(words)
