"""Logs as one JSON object a line on stdout: event name, fields, never a body."""

import logging

import msgspec
import structlog


def configure_logs() -> None:
    """For the whole process; libraries that use `logging` join at WARNING."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_to_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING,
        format='{"event":"library_message","logger":"%(name)s","level":"%(levelname)s","message":"%(message)s"}',
    )


def _to_json(event: object, **_: object) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)
