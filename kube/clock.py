"""Where the edge reads the time; everything else takes it as an argument."""

import time
from datetime import UTC, datetime


def boot_clock() -> float:
    """Seconds since boot, time asleep included: on the monotonic clock a resumed machine would still lead."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def utc_now() -> datetime:
    return datetime.now(UTC)


def micro_time(moment: datetime) -> str:
    """MicroTime of meta/v1: RFC 3339 in UTC with six digits."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
