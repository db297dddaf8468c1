"""Retry calls of a service that is busy or unreachable, at the pace that it asks for."""

from collections.abc import Callable
from contextlib import suppress

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential

TRIES = 9
# A service's clock may be wrong: a date in Retry-After can be years away.
LONGEST_PAUSE = 20.0


def pause_of(error: BaseException | None, backoff: float, longest: float) -> float:
    """Return the seconds until the next try: at least ``backoff``, unless the service asks for exact milliseconds."""
    headers = getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None) or {}
    with suppress(ValueError):
        if exact := headers.get("retry-after-ms"):
            return min(float(exact) / 1000, longest)
        return min(max(backoff, int(headers.get("retry-after", ""))), longest)
    return backoff


def retrying(
    passing: Callable[[BaseException], bool],
    first: float,
    longest: float = LONGEST_PAUSE,
    tell: Callable[[RetryCallState], None] | None = None,
) -> Retrying:
    """Return what retries a call up to `TRIES` times, and then raises its last error.

    Args:
        passing: whether an error may go away by itself.
        first: seconds before the second try; each further pause is twice as long, up to ``longest``.
        tell: called before each pause.
    """
    backoff = wait_exponential(multiplier=first, max=longest)
    return Retrying(
        stop=stop_after_attempt(TRIES),
        wait=lambda state: pause_of(state.outcome.exception() if state.outcome else None, backoff(state), longest),
        retry=retry_if_exception(passing),
        before_sleep=tell,
        reraise=True,
    )
