"""Credentials go beside those that are there."""

import stat


def test_other_registries_stay(role_module):
    login = role_module("container_engine_login")
    before = {"auths": {"a:5000": {"auth": "x"}}, "detachKeys": "ctrl-x"}
    after = login.with_login(before, "b:5000", "user", "pass:word")
    assert after == {
        "auths": {"a:5000": {"auth": "x"}, "b:5000": {"auth": "dXNlcjpwYXNzOndvcmQ="}},
        "detachKeys": "ctrl-x",
    }
    assert login.with_login(after, "b:5000", "user", "pass:word") == after


def test_the_file_is_for_root_alone(role_module, tmp_path):
    login = role_module("container_engine_login")
    path = tmp_path / ".docker" / "config.json"
    login.write_private(path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["config.json"]
