"""What a part's constructor says of numbers out of range, for ``check.py`` to make a fault of; None is in range."""


def at_least_one(part: object, *names: str) -> None:
    """Raise ValueError unless each of these fields of ``part`` is 1 or more."""
    _refuse_unless(part, names, 1, float("inf"), "at least 1")


def not_negative(part: object, *names: str) -> None:
    """Raise ValueError unless each of these fields of ``part`` is 0 or more."""
    _refuse_unless(part, names, 0, float("inf"), "a number >= 0")


def between(part: object, low: float, high: float, *names: str) -> None:
    """Raise ValueError unless each of these fields of ``part`` is from ``low`` to ``high``, both included."""
    _refuse_unless(part, names, low, high, f"a number from {low:g} to {high:g}")


def _refuse_unless(part: object, names: tuple[str, ...], low: float, high: float, expected: str) -> None:
    for name in names:
        value = getattr(part, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name}: expected {expected}, got {value}")
