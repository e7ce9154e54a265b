"""What a user can mend, said in one line."""


class CommandError(ValueError):
    """Wrong use, or an input that cannot be used; the message names it and the fix."""
