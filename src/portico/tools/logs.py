"""What the library logs, on standard error: one line for each thing; tracebacks only when asked for."""

import logging
import traceback
from pathlib import Path

TIMED = "%(asctime)s %(levelname)s %(name)s: %(message)s"
PLAIN = "portico: %(message)s"


class OneLine(logging.Formatter):
    """One line for each record, with the place of an error; the whole traceback with `debug`."""

    def __init__(self, pattern: str, *, debug: bool) -> None:
        super().__init__(pattern)
        self._debug = debug

    def format(self, record: logging.LogRecord) -> str:
        if self._debug or not record.exc_info:
            return super().format(record)
        told = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        error = record.exc_info[1]
        return f"{super().format(told)}{'' if error is None else place_of(error)}; --debug shows the traceback"


def set_up_logging(level: str = "warning", *, pattern: str = PLAIN, debug: bool = False) -> None:
    """Log to standard error from `level` on, in place of what was set up before."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine(pattern, debug=debug))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def place_of(error: BaseException) -> str:
    """Return file and line of where it was raised, outside of the standard library's import machinery."""
    if isinstance(error, SyntaxError):
        return ""  # its text has them
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<frozen")]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
