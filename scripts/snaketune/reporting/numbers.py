"""Numbers as the report and the model cards show them; a missing one is a dash."""

MIB = 2**20
Value = float | str | None


def number(value: Value, digits: int = 3, sign: bool = False) -> str:
    """Format with fixed digits after the point; a value that would round to zero keeps as many significant digits."""
    if value in ("", None):
        return "–"
    figure = float(value or 0)
    tiny = 0 < abs(figure) < 0.5 * 10**-digits
    return f"{figure:{'+' if sign else ''}{f'.{digits or 1}g' if tiny else f',.{digits}f'}}"


def counted(count: int, noun: str) -> str:
    """Return a count of things: 1 comparison, 2 comparisons."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def measured(value: Value, sign: bool = False) -> str:
    """Format a metric: three digits after the point, one if it is large, like perplexity."""
    if value in ("", None):
        return "–"
    # Equal systems differ by the rounding of sums.
    figure = round(float(value or 0), 12)
    return number(figure, 3 if abs(figure) < 10 else 1, sign)


def mib(value: Value) -> str:
    """Format a number of bytes in MiB."""
    return "–" if value in ("", None) else number(float(value or 0) / MIB, 1)
