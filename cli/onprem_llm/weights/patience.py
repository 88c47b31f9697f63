"""How long a hub that does not answer, or asks for time, is waited for."""

from dataclasses import dataclass, field

from onprem_llm.weights.hubs.hub import TemporaryError


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to try without getting further, the first wait in seconds (doubled each time), the longest wait.

    `named` is how many seconds a hub may ask for in all, without a byte in between.
    """

    tries: int = 6
    first: float = 1.0
    # Hugging Face counts requests in windows of 300 s, and says when the next one begins.
    longest: float = 330.0
    named: float = 3600.0


@dataclass(slots=True)
class Waits:
    """Counts the tries since something came. A wait that the hub itself named is obeyed, and is no try of ours."""

    patience: Patience
    _tries: int = field(default=0, init=False)
    _named: float = field(default=0.0, init=False)

    def came(self) -> None:
        """Begin to count anew: something came."""
        self._tries, self._named = 0, 0.0

    def next(self, error: TemporaryError) -> float | None:
        """Return the seconds to wait before it is asked again; None where there is no point in it any more."""
        if error.wait is None:
            self._tries += 1
            return None if self._tries >= self.patience.tries else self.patience.first * 2.0 ** (self._tries - 1)
        # One that names 0 for ever must not be asked without a pause for ever.
        wait = max(error.wait, self.patience.first)
        self._named += wait
        return wait if wait <= self.patience.longest and self._named <= self.patience.named else None


def asked_wait(error: TemporaryError) -> str:
    """Say how long the hub wants to be left alone, where it does."""
    return f", and asks to wait {error.wait:.0f} s" if error.wait is not None else ""
