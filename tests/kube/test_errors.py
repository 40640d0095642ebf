"""What the API server says, as types; and what must never get into their texts."""

import base64
import json

import msgspec
import pytest

from kube import errors
from kube.errors import MAX_TEXT, error_from_body
from kube.kinds import Secret

KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n"


def status(code: int, reason: str, message: str = "words", **details: object) -> bytes:
    return json.dumps(
        {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    ).encode()


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", errors.InvalidError),
        (401, "Unauthorized", errors.UnauthorizedError),
        (403, "Forbidden", errors.ForbiddenError),
        (404, "NotFound", errors.NotFoundError),
        (409, "AlreadyExists", errors.AlreadyExistsError),
        (409, "Conflict", errors.ConflictError),
        (410, "Expired", errors.GoneError),
        (415, "UnsupportedMediaType", errors.InvalidError),
        (422, "Invalid", errors.InvalidError),
        (429, "TooManyRequests", errors.TooManyRequestsError),
        (500, "InternalError", errors.ServerError),
        (504, "Timeout", errors.ServerError),
        (418, "", errors.ApiError),
    ],
)
def test_each_answer_has_its_type(code: int, reason: str, kind: type[errors.ApiError]) -> None:
    error = error_from_body(code, status(code, reason))
    assert type(error) is kind
    assert error.status == code


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"[1]", b"\xff", b'{"reason": 7}'])
def test_a_body_that_is_no_status_still_becomes_an_error(body: bytes) -> None:
    error = error_from_body(502, body)
    assert isinstance(error, errors.ServerError)
    assert error.transient


def test_a_terminating_namespace_and_a_full_quota_are_told_apart_from_rbac() -> None:
    ending = error_from_body(403, status(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}]))
    assert isinstance(ending, errors.ForbiddenError)
    assert ending.namespace_terminating
    full = error_from_body(403, status(403, "Forbidden", 'secrets "x" is forbidden: exceeded quota: q, requested: 1'))
    assert isinstance(full, errors.ForbiddenError)
    assert full.quota_exceeded
    assert not full.namespace_terminating


def test_retry_after_comes_from_the_header_or_the_body() -> None:
    assert error_from_body(429, status(429, "TooManyRequests"), retry_after="7").retry_after_s == 7
    assert error_from_body(429, status(429, "TooManyRequests", retryAfterSeconds=3)).retry_after_s == 3
    assert error_from_body(429, b"").retry_after_s is None


@pytest.mark.parametrize("code", [400, 413, 422, 500])
def test_what_the_server_quotes_of_a_secret_is_dropped(code: int) -> None:
    message = 'Secret "x" is invalid: data[tls.key]: Invalid value: "hunter2"'
    body = status(code, "Invalid", message, causes=[{"reason": "FieldValueInvalid", "field": "data[tls.key]"}])
    error = error_from_body(code, body, path="/api/v1/namespaces/x/secrets/y")
    assert "hunter2" not in str(error)
    assert "data[tls.key]" in str(error)


def test_key_material_is_taken_out_of_every_text() -> None:
    long = base64.b64encode(KEY.encode() * 3).decode()
    error = error_from_body(422, status(422, "Invalid", f"refused {KEY} and {long} there"), path="/api/v1/pods")
    assert str(error) == "422 Invalid: refused [hidden] and [hidden] there"


def test_texts_are_cut() -> None:
    error = error_from_body(422, status(422, "Invalid", "no, " * 5000))
    assert len(str(error)) <= MAX_TEXT + len("422 Invalid: ")


def test_a_secret_shows_its_keys_and_never_its_data() -> None:
    data = base64.b64encode(KEY.encode()).decode()
    body = json.dumps(
        {"metadata": {"name": "s", "namespace": "x"}, "type": "kubernetes.io/tls", "data": {"tls.key": data}}
    )
    secret = msgspec.json.decode(body, type=Secret)
    assert secret.decoded() == {"tls.key": KEY.encode()}
    for text in (repr(secret), str(secret), f"{[secret]}", repr(secret.__rich_repr__())):
        assert data not in text
        assert "tls.key" in text


@pytest.mark.parametrize(
    "body",
    [
        '{"metadata": {"name": "s"}, "data": {"tls.key": 12345678}}',
        '{"metadata": {"name": "s"}, "data": {"tls.key": ["hunter2"]}}',
        '{"metadata": {"name": "s"}, "data": "hunter2"}',
        '{"metadata": {"name": "s"}, "data": {"tls.key": "hunter2}}',
        '{"metadata": {"name": ["hunter2"]}}',
    ],
)
def test_errors_of_the_decoder_name_the_path_and_never_a_value(body: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(body, type=Secret)
    assert "hunter2" not in str(caught.value)
    assert "12345678" not in str(caught.value)
