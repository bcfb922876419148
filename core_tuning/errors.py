"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """A mistake of the user's, which the command line reports as one sentence and exit code 2.

    The message names the value, what was expected, and what to do.
    """


def reason(error: BaseException) -> str:
    """Return what an exception says, or else its name: for brackets within a sentence."""
    # The lines before are torch's advice to load files that run code.
    lines = str(error).rpartition("WeightsUnpickler error: ")[2].strip().splitlines()
    return shown(lines[0].rstrip("."), 120) if lines else type(error).__name__


def shown(value: object, most: int = 80) -> str:
    """Return a value for a message: on one line, in characters that can be printed, shortened."""
    try:
        text = str(value)
    except RecursionError:
        return f"a {type(value).__name__}"
    begin = text[:most] if len(text) <= most else f"{text[: most - 3]}..."
    return begin if begin.isprintable() else repr(begin)[1:-1]
