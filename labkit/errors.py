"""The one error that means: your input is wrong, and here is what to do."""


class InputError(ValueError):
    """Bad input from outside. The message is one line: what is wrong, where, and the cure."""
