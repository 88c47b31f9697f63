"""What a user is told when something does not work, and the exit code that goes with it."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `onprem-llm`; documented in docs/cli.md. 2 is click's own for a wrong command line."""

    OK = 0
    DECLINED = 1
    USAGE = 2
    VALIDATION = 3
    UNREACHABLE = 4
    FAILED = 5
    REFUSED = 6
    INTERRUPTED = 130


class OnpremError(Exception):
    """An error a user can act on: what was found and expected (`message`), and what to do (`hint`).

    `main.py` is the one place that turns it into text and an exit code. `details` is shown between the two, as it is
    (a table of GPUs, the last lines of a log).
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: str | None = None,
        exit_code: ExitCode = ExitCode.FAILED,
    ) -> None:
        """Keep the parts apart, so that `--json` can show them apart."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        self.exit_code = exit_code


class UsageError(OnpremError):
    """The command line asks for something that cannot be (no inventory named, two options that exclude each other)."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """As OnpremError, with exit code 2."""
        super().__init__(message, hint=hint, exit_code=ExitCode.USAGE)


class InvalidError(OnpremError):
    """A file or a setting is wrong, or the hosts cannot carry what it asks for; nothing was changed."""

    def __init__(self, message: str, *, hint: str | None = None, details: str | None = None) -> None:
        """As OnpremError, with exit code 3."""
        super().__init__(message, hint=hint, details=details, exit_code=ExitCode.VALIDATION)


class UnreachableError(OnpremError):
    """At least one host did not answer or did not let us in."""

    def __init__(self, message: str, *, hint: str | None = None, details: str | None = None) -> None:
        """As OnpremError, with exit code 4."""
        super().__init__(message, hint=hint, details=details, exit_code=ExitCode.UNREACHABLE)


class RefusedError(OnpremError):
    """Somebody else holds the lock, or the hosts moved since the plan was made; nothing was changed."""

    def __init__(self, message: str, *, hint: str | None = None, details: str | None = None) -> None:
        """As OnpremError, with exit code 6."""
        super().__init__(message, hint=hint, details=details, exit_code=ExitCode.REFUSED)


class DeclinedError(OnpremError):
    """The person was asked and said no."""

    def __init__(self) -> None:
        """Say what follows, with exit code 1."""
        super().__init__("Nothing was changed.", exit_code=ExitCode.DECLINED)
