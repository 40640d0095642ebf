"""How much of something may happen in a second: a token bucket. Pure; `now` is seconds that only grow."""


class Budget:
    """`rate` a second on average, and as much at once."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._left, self._at = rate, rate, now

    def take(self, amount: int, now: float) -> bool:
        """True if `amount` may happen now. The last one may overdraw the budget: the next ones pay for it."""
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left <= 0:
            return False
        self._left -= amount
        return True
