"""The command `twinkernels`, also as `python -m twinkernels`: what has to be in place before the rest is imported.

Ctrl-C ends it with one line from the first statement of `main` on; what comes before is Python's own start. So nothing
is imported on the way there that Python has not loaded by itself, not even `signal`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; see `cli.main`."""
    heard = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler  # shells have background jobs ignore it
    if heard:
        _signal.signal(_signal.SIGINT, _interrupted)  # an exception would come up anywhere in what is being imported
    from . import streams

    try:
        streams.prepare()
    except ValueError as error:
        print(f"twinkernels: {error}", file=sys.stderr)
        sys.exit(2)
    from . import cli

    try:
        if heard:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        cli.main()
    except KeyboardInterrupt:  # another, while the first was answered
        os._exit(130)
    finally:
        import gc

        gc.freeze()  # nothing of Numba's is garbage; to look for some takes Python's end a third of a second
        if heard:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # all is said, and Python's own end would leave a trace


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"twinkernels: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
