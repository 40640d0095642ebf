"""Who taps whom: the sessions of `autotls tap` in this replica, and what each of them is to be told.

Pure but for its own state: the clock is an argument, and who waits for lines is woken by a callback.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from discovery.accesslog import Record
from discovery.budget import Budget
from discovery.entries import Entry, Line, Selection
from discovery.errors import TapLimitError
from discovery.naming import entry_of
from discovery.selecting import is_of, passes
from discovery.snapshot import PodFacts
from discovery.world import World

# Of a million requests: all of them.
EVERYTHING: Final = 1_000_000
MAX_SESSIONS: Final = 16
# Entries that wait for one session; an entry is a kilobyte, four at most.
MAX_WAITING: Final = 1000

_encode: Final = msgspec.json.Encoder().encode


def _nothing() -> None:
    pass


class Session:
    """One tap. `lines` empties it."""

    def __init__(self, selection: Selection, wake: Callable[[], None], now: float) -> None:
        self.selection = selection
        self._wake = wake
        self._budget = Budget(selection.max_rps, now) if selection.max_rps else None
        self._waiting: deque[bytes] = deque()
        self._skipped = self._lost = 0

    def take(self, entry: Entry, now: float) -> None:
        if not passes(self.selection, entry):
            return
        if self._budget and not self._budget.take(1, now):
            self._skipped += 1
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(_encode(Line(entry)) + b"\n")
        self._wake()

    def lost(self, entries: int) -> None:
        self._lost += entries

    def lines(self) -> bytes:
        """What waits, oldest first."""
        found = b"".join(self._waiting)
        self._waiting.clear()
        return found

    def news(self, proxies: int) -> bytes:
        """How things are; counts start again at 0."""
        line = Line(proxies=proxies, skipped=self._skipped, lost=self._lost)
        self._skipped = self._lost = 0
        return _encode(line) + b"\n"


class Taps:
    """All sessions, as a consumer of the sink. `changed` is called after the set of sessions changes."""

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self._world, self._clock = world, clock
        self._sessions: dict[int, Session] = {}
        self.changed: Callable[[], None] = _nothing

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, selection: Selection, wake: Callable[[], None]) -> Session:
        """Raises TapLimitError."""
        if len(self._sessions) >= MAX_SESSIONS:
            raise TapLimitError(f"{MAX_SESSIONS} taps are open already", hint="end one of them, or try again later")
        session = Session(selection, wake, self._clock())
        self._sessions[id(session)] = session
        self.changed()
        return session

    def close(self, session: Session) -> None:
        if self._sessions.pop(id(session), None):
            self.changed()

    def level(self, pod: PodFacts) -> int:
        """How many of a million requests the proxy of `pod` has to tell."""
        return EVERYTHING if self.wants(pod) else 0

    def matches(self, session: Session, pod: PodFacts) -> bool:
        return is_of(session.selection.of, pod, self._world.services_of(pod))

    def wants(self, pod: PodFacts) -> bool:
        return any(self.matches(session, pod) for session in self._sessions.values())

    def take(self, pod: PodFacts, records: Sequence[Record]) -> None:
        sessions = [session for session in self._sessions.values() if self.matches(session, pod)]
        now = self._clock()
        for record in records if sessions else ():
            entry = entry_of(record, pod, self._world)
            for session in sessions:
                session.take(entry, now)

    def lost(self, pod: PodFacts, entries: int) -> None:
        for session in self._sessions.values():
            if self.matches(session, pod):
                session.lost(entries)
