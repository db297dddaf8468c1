"""One clear message for a user's mistake, a traceback for ours."""

import re
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake that the user can fix; its message says what, where and what to do.

    ``passing``: it may pass by itself, as a network's failure does, so Snakemake may try the job again.
    """

    def __init__(self, message: object, passing: bool = False):
        super().__init__(message)
        self.passing = passing


# How a message ends after which Snakemake may try its job again.
AGAIN = " (this may pass by itself: another try may succeed)"


def run(main: Callable[[], None]) -> None:
    """Call a script's ``main`` and end with exit code 1 and one line on a UserError."""
    try:
        main()
    except UserError as error:
        again = AGAIN if error.passing else ""
        print(f"error: {error}{again}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def is_users_mistake(log: str) -> bool:
    """Return whether a log ends with the message of a UserError that no other try of its job can cure."""
    # After the message of a rank, torchrun logs that it failed.
    lines = [line for line in log.splitlines() if not re.match(r"\s|$|(\[rank\d+\]:\[)?[EW]\d{4} ", line)]
    return bool(lines) and lines[-1].startswith("error: ") and AGAIN not in log
