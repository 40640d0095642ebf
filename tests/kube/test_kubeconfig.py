"""Kubeconfigs: merged as kubectl merges them, and never shown."""

import json
from pathlib import Path

import pytest
from msgspec.structs import asdict

from kube.errors import KubeconfigError
from kube.kubeconfig import User, read_kubeconfig


def write(path: Path, **content: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_the_first_file_that_names_something_wins(tmp_path: Path) -> None:
    one = write(
        tmp_path / "one" / "config",
        users=[{"name": "me", "user": {"token": "first"}}],
        contexts=[{"name": "work", "context": {"cluster": "near", "user": "me"}}],
        **{"current-context": "work"},
    )
    two = write(
        tmp_path / "two" / "config",
        clusters=[{"name": "near", "cluster": {"server": "https://near", "certificate-authority": "ca.crt"}}],
        users=[{"name": "me", "user": {"token": "second"}}],
        contexts=[{"name": "home", "context": {"cluster": "near"}}],
        **{"current-context": "home"},
    )
    merged = read_kubeconfig((one, two))
    found = merged.find(None)
    assert (found.cluster.server, found.user.token) == ("https://near", "first")
    # A relative path starts where the file is that has it.
    assert found.cluster_folder / found.cluster.certificate_authority == tmp_path / "two" / "ca.crt"
    assert found.user_folder == tmp_path / "one"
    assert merged.find("home").user == User()


@pytest.mark.parametrize("text", ["users: null", "contexts:\n", "preferences: {}\nkind: Config\nextensions: [{a: 1}]"])
def test_what_is_empty_or_unknown_is_no_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    assert read_kubeconfig([path]).contexts == {}


def test_a_user_that_is_named_must_be_there(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config",
        clusters=[{"name": "near", "cluster": {"server": "https://near"}}],
        contexts=[{"name": "work", "context": {"cluster": "near", "user": "gone"}}],
    )
    with pytest.raises(KubeconfigError, match="no user of the name gone"):
        read_kubeconfig([path]).find("work")


def test_a_cluster_without_a_server_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config",
        clusters=[{"name": "near", "cluster": None}],
        contexts=[{"name": "work", "context": {"cluster": "near"}}],
    )
    with pytest.raises(KubeconfigError, match="cluster near has no server"):
        read_kubeconfig([path]).find("work")


def test_a_user_shows_which_fields_it_has_and_none_of_their_content() -> None:
    secret = "c2VjcmV0"
    names = [name for name in asdict(User()) if name not in ("exec", "auth_provider")]
    user = User(**dict.fromkeys(names, secret), exec={"env": [{"name": "A", "value": secret}]})
    for shown in (repr(user), str(user), f"{user}", str(user.__rich_repr__())):
        assert secret not in shown
        assert "token" in shown and "exec" in shown


@pytest.mark.parametrize(
    "text",
    [
        'users: [{name: me, user: {token: "c2VjcmV0}}]',
        "users: [{name: me, user: {token: c2VjcmV0, password: {c2VjcmV0: 1}}}]",
        "users: {token: c2VjcmV0}",
        "users: [{name: me, user: c2VjcmV0}]",
        "token: c2VjcmV0\n\tbroken",
    ],
)
def test_errors_name_the_place_and_quote_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(KubeconfigError) as caught:
        read_kubeconfig([path])
    assert "c2VjcmV0" not in str(caught.value)
    assert str(path) in caught.value.message


def test_what_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"a: \xff")
    with pytest.raises(KubeconfigError, match="not UTF-8"):
        read_kubeconfig([path])
