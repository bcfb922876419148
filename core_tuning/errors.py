"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """A mistake of the user's, which the command line reports as one sentence and exit code 2.

    The message names the value, what was expected, and what to do.
    """
