"""The projections read what a real API server sends."""

import msgspec
import pytest

from mesh.pod import Pod

_STATES = {
    "running": {"startedAt": "2026-11-24T17:00:00Z"},
    "waiting": {"reason": "ImagePullBackOff", "message": "cannot pull"},
    "terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-11-24T17:00:00Z"},
}


@pytest.mark.parametrize("state", _STATES)
def test_a_container_in_any_state_is_read(state: str) -> None:
    text = msgspec.json.encode(
        {
            "metadata": {"name": "p", "labels": None},
            "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "app", "state": {state: _STATES[state]}}]},
        }
    )
    pod = msgspec.json.decode(text, type=Pod)
    statuses = pod.status.container_statuses
    assert statuses is not None
    seen = statuses[0].state
    assert seen is not None
    assert [name for name in _STATES if getattr(seen, name) is not None] == [state]


def test_waiting_says_why() -> None:
    text = b"""{"metadata": {}, "status": {"containerStatuses": [
        {"name": "app", "state": {"waiting": {"reason": "ErrImagePull"}}}]}}"""
    (status,) = msgspec.json.decode(text, type=Pod).status.container_statuses or ()
    assert status.state is not None
    assert status.state.waiting is not None
    assert status.state.waiting.reason == "ErrImagePull"
