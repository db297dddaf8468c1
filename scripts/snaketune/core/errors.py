"""One clear message for a user's mistake, a traceback for ours."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake that the user can fix; its message says what, where and what to do."""


def run(main: Callable[[], None]) -> None:
    """Call a script's ``main`` and end with exit code 1 and one line on a UserError."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
