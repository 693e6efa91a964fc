"""How a command ends when it does not end well. The dispatcher turns each into an exit code."""


class UserError(Exception):
    """The user's input is wrong (exit code 2). The message names the key or the file, the value,
    what is allowed and the way out; it is all that the user sees."""


class TrainingError(Exception):
    """The run cannot go on (exit code 1), for a reason that the message tells whole."""


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived and what is to be kept is saved (exit code 128 + signal number).

    Like KeyboardInterrupt it is no Exception: whoever catches those must not swallow it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number
