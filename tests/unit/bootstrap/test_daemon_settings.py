"""daemon.json is merged: what a person wrote stays."""

from types import SimpleNamespace

import pytest

ENFORCED = {"live-restore": True}
DEFAULTS = {"features": {"cdi": True}, "log-opts": {"max-size": "50m", "max-file": "4"}}


@pytest.fixture
def settings(role_module):
    return role_module("container_engine_settings")


def test_an_empty_file_gets_ours(settings):
    assert settings.merged({}, ENFORCED, DEFAULTS) == {**ENFORCED, **DEFAULTS}


def test_foreign_keys_and_their_order_stay(settings):
    before = {"registry-mirrors": ["https://m"], "features": {"buildkit": True}, "data-root": "/data"}
    after = settings.merged(before, ENFORCED, DEFAULTS)
    assert list(after)[:3] == list(before)
    assert after["features"] == {"buildkit": True, "cdi": True}
    assert after["data-root"] == "/data"
    assert before["features"] == {"buildkit": True}


def test_a_persons_values_beat_defaults_but_not_what_is_enforced(settings):
    before = {"live-restore": False, "log-opts": {"max-size": "5m"}, "features": {"cdi": False}}
    after = settings.merged(before, ENFORCED, DEFAULTS)
    assert after == {
        "live-restore": True,
        "log-opts": {"max-size": "5m", "max-file": "4"},
        "features": {"cdi": False},
    }


@pytest.mark.parametrize(("driver", "rotated"), [("journald", False), ("json-file", True), ("local", True)])
def test_rotation_is_left_out_where_the_driver_refuses_it(settings, driver, rotated):
    assert ("log-opts" in settings.merged({"log-driver": driver}, ENFORCED, DEFAULTS)) is rotated


def test_merging_twice_changes_nothing(settings):
    once = settings.merged({"debug": True}, ENFORCED, DEFAULTS)
    assert settings.merged(once, ENFORCED, DEFAULTS) == once
    assert settings.parse(settings.text_of(once)) == once


def test_what_differs_decides_between_reload_and_restart(settings):
    assert settings.changed_keys({}, {"live-restore": True}) <= settings.RELOADABLE
    assert not settings.changed_keys({}, {"live-restore": True, "features": {"cdi": True}}) <= settings.RELOADABLE


@pytest.mark.parametrize(("text", "said"), [('{"a": 1,}', "line 1"), ("[1]", "not a mapping"), ("# x", "not JSON")])
def test_a_broken_file_is_named(settings, text, said):
    with pytest.raises(settings.SettingsError, match=said):
        settings.parse(text)


def test_an_empty_file_is_fine(settings):
    assert settings.parse(" \n") == {}


def test_pools_and_proxy_as_docker_spells_them(settings):
    asked = settings.asked_settings(
        [{"base": "10.200.0.0/16", "size": "24"}],
        {"http": "http://u:p@proxy:3128", "https": None, "no_proxy": ["10.0.0.0/8", "localhost"]},
    )
    assert asked == {
        "default-address-pools": [{"base": "10.200.0.0/16", "size": 24}],
        "proxies": {"http-proxy": "http://u:p@proxy:3128", "no-proxy": "10.0.0.0/8,localhost"},
    }
    assert settings.holds_password(asked)
    assert not settings.holds_password(settings.asked_settings(None, {"http": "http://proxy:3128"}))
    assert settings.asked_settings(None, None) == {}


@pytest.mark.parametrize(
    ("there", "features"), [(False, {"containerd-snapshotter": False, "cdi": True}), (True, {"cdi": True})]
)
def test_an_engine_that_is_there_keeps_the_store_that_its_images_are_in(
    role_module, monkeypatch, tmp_path, there, features
):
    daemon = role_module("container_engine_daemon")
    monkeypatch.setattr(daemon, "run", lambda argv, *_: (0 if there else 127, ""))
    params = {
        "path": str(tmp_path / "daemon.json"), "enforced": {}, "defaults": {"features": {"cdi": True}},
        "defaults_of_new": {"features": {"containerd-snapshotter": False}}, "address_pools": None, "proxy": None,
    }  # fmt: skip
    assert daemon.Daemon(SimpleNamespace(params=params)).after == {"features": features}
