"""The site's settings."""

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.spec.site import parse_site


def problems(**settings: object) -> str:
    with pytest.raises(InvalidError) as raised:
        parse_site(settings, "inventory.ini")
    return f"{raised.value.message}\n{raised.value.details}"


def test_every_setting_has_a_default() -> None:
    site = parse_site({}, "inventory.ini")
    assert site.weights_path == "/srv/onprem-llm/weights"
    assert site.project_path("tiny-0") == "/srv/onprem-llm/tiny-0"
    assert site.open_webui.enabled


def test_weights_follow_data_root_unless_named() -> None:
    assert parse_site({"data_root": "/data/llm/"}, "i").weights_path == "/data/llm/weights"
    assert parse_site({"weights_dir": {"path": "/nfs/w", "shared": True}}, "i").weights_path == "/nfs/w"


def test_an_unknown_key_is_refused_with_its_path() -> None:
    text = problems(registry={"adress": "r:5000", "address": "r:5000"})
    assert "inventory.ini: one problem" in text
    assert "onprem_llm_site.registry.adress: unknown key; did you mean address?" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data_root": "srv"}, "onprem_llm_site.data_root: found 'srv', expected an absolute path"),
        ({"data_root": "/"}, "expected a folder of its own"),
        ({"data_root": "/srv"}, "expected a folder of its own"),
        ({"data_root": "/srv/../etc"}, "expected an absolute path"),
        ({"registry": {"address": "http://r"}}, "expected host or host:port"),
        ({"registry": {"address": "r", "username": "u"}}, "username and password go together"),
        ({"registry": {"address": "r", "username": "u", "password": "p"}}, "expected a mapping"),
        ({"proxy": {"http": "proxy:3128"}}, "onprem_llm_site.proxy.http: found 'proxy:3128'"),
        (
            {"package_mirrors": {"debian": "https://m/debian\nTrusted: yes"}},
            "onprem_llm_site.package_mirrors.debian: found 'https://m/debian\\nTrusted: yes'",
        ),
        ({"package_mirrors": {"docker": "https://"}}, "expected an address that begins with http:// or https://"),
        ({"docker": {"address_pools": [{"base": "10.0.0.1/8", "size": 24}]}}, "expected an IPv4 network"),
        ({"docker": {"address_pools": [{"base": "10.0.0.0/24", "size": 16}]}}, "size 16 is larger"),
        ({"open_webui": {"enabled": "yes"}}, "onprem_llm_site.open_webui.enabled: found the text 'yes'"),
        ({"open_webui": {"env": {"OAUTH_CLIENT_SECRET": "x"}}}, "looks like a secret"),
        ({"open_webui": {"env": {"WEBUI_SECRET_KEY": {"from_env": "X"}}}}, "set by the plan"),
        ({"open_webui": {"image": "open-webui"}}, "expected a version"),
        ({"public_port": 0}, "onprem_llm_site.public_port: found 0"),
        (
            {"ray": {"ports": {"first": 20000, "last": 20050}}},
            "onprem_llm_site.ray.ports: found 20000 to 20050, expected 60",
        ),
        ({"ray": {"ports": {"first": 20999, "last": 20000}}}, "expected 60 ports or more, the first one first"),
        ({"ray": {"serve_port": 20001}}, "onprem_llm_site.ray: serve_port: found 20001, which is one of ports"),
        ({"ray": {"image": "ray"}}, "onprem_llm_site.ray.image: found 'ray', expected a version"),
    ],
)
def test_wrong_settings_name_their_path(settings: dict[str, object], said: str) -> None:
    assert said in problems(**settings)
