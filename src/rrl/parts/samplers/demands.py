"""What a selection rule asks of the responses that it cuts."""

from rrl.interfaces import Selection


def reads_errors(rule: Selection) -> bool:
    """Whether a rule reads where a response is first wrong; false of one that could not be made."""
    return "first_errors" in getattr(rule, "needs", ())


def examines(rule: Selection) -> bool:
    """Whether a rule has more written about failed responses; false of one that could not be made."""
    expense = getattr(rule, "expense", None)
    return expense is not None and expense(1) > 0


def needs_failures(rule: Selection, others: str) -> str | None:
    """Why a rule cannot cut others than failed responses; None where it can."""
    if reads_errors(rule):
        return f"{type(rule).__name__} needs a first error, which {others} do not have"
    return f"{type(rule).__name__} examines failed responses, which {others} are not" if examines(rule) else None
