"""The key of a package repository: each key of its file is known by its fingerprint, fetched or there already."""

import base64
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def keys():
    """Docker's key, as it were, and another's."""
    from pysequoia import Profile, Tsk

    return [Tsk.generate(name, profile=Profile.RFC4880).extract_certificate() for name in ("docker", "other")]


@pytest.fixture
def part(role_module):
    return role_module("onprem_llm_package_key")


@pytest.fixture
def openpgp(role_module):
    return role_module("onprem_llm_openpgp")


@pytest.fixture
def key(part, keys, tmp_path):
    """Of a mirror that is a folder."""
    address, path = (tmp_path / "gpg").as_uri(), tmp_path / "etc/keyrings/x.asc"
    return part.Key(address, path, "x's repository", [keys[0].fingerprint], "role_fingerprints")


def test_a_fingerprint_is_what_openpgp_says(openpgp, keys):
    for data in (str(keys[0]).encode(), bytes(keys[0]), str(keys[0]).replace("\n", "\r\n").encode()):
        assert openpgp.fingerprints(data) == [keys[0].fingerprint.upper()]
    assert len(openpgp.fingerprints(bytes(keys[0]) + bytes(keys[1]))) == 2


NOTHING = {
    "empty": b"",
    "a page": b"<html>not found</html>",
    "cut off": b"\x99",
    "no body": b"\x98\x00",
    "a length in parts": b"\xc6\xe1\x04",
    "no length": b"\xff\xff\xff",
    "armor without end": b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nx\n",
    "armored nothing": b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_no_key_has_none(openpgp, name):
    assert openpgp.fingerprints(NOTHING[name]) == []


def hidden(one, two):
    """Return the first key with the second before it, behind a line of blanks: to gpg that line is an empty one."""
    lines = [line for line in str(one).splitlines() if not line.startswith("=")]
    trust = bytes((1 - len(bytes(two))) % 3 + 3)  # a packet for nothing, so that the second key ends without padding
    body = base64.b64encode(bytes(two) + bytes([0xCC, len(trust)]) + trust).decode()
    return "\n".join([lines[0], " ", body, "", *lines[lines.index("") + 1 :], ""]).encode()


def compressed(one, two):
    """Return the first key, and the second in a packet of compressed data (not compressed), which gpg opens."""
    body = b"\x00" + bytes(two)
    return bytes(one) + b"\xc8\xff" + len(body).to_bytes(4, "big") + body


FORMS = {
    "armored": lambda one, two: str(one).encode() + str(two).encode(),
    "binary": lambda one, two: bytes(one) + bytes(two),
    "turned": lambda one, two: bytes(two) + bytes(one),
    "binary behind armor": lambda one, two: str(one).encode() + bytes(two),
    "armor behind binary": lambda one, two: bytes(one) + str(two).encode(),
    "before an empty line that is none": hidden,
    "compressed": compressed,
    "alone": lambda _, two: bytes(two),
    "none": lambda *_: b"none",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("there", [False, True], ids=["fetched", "there"])
def test_every_key_of_a_file_must_be_known(part, keys, key, tmp_path, form, there):
    """apt and dnf would trust whatever that other key signs."""
    place = key.path if there else tmp_path / "gpg"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(FORMS[form](*keys))
    with pytest.raises(part.PackageError) as refused:
        part.present(key)
    said = str(refused.value)
    assert f"at {key.path if there else key.address}, expected {keys[0].fingerprint} of x's repository alone" in said
    assert "whoever holds another key could install anything" in said
    assert ("Remove that file" if there else "Correct the mirror") in said
    assert "names the fingerprint of its key in group_vars: role_fingerprints" in said
    assert key.path.exists() is there


def test_gpg_does_find_what_is_hidden(openpgp, keys, tmp_path):
    """Or the two tests above would prove nothing."""
    import subprocess

    for number, form in enumerate((hidden, compressed)):
        home = tmp_path / str(number)
        home.mkdir(mode=0o700)
        argv = ["gpg", "--homedir", str(home), "--batch", "--no-autostart", "--quiet"]
        subprocess.run([*argv, "--import"], input=form(*keys), check=False, capture_output=True)
        found = subprocess.run(
            [*argv, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True
        ).stdout
        assert keys[1].fingerprint.upper() in found, form.__name__
        assert openpgp.fingerprints(form(*keys)) == []


def test_the_right_key_is_there_as_it_came_for_apts_own_user_and_is_fetched_once(part, keys, key, tmp_path):
    (tmp_path / "gpg").write_text(str(keys[0]))
    spelled = key._replace(known=[" ".join(keys[0].fingerprint.lower())])
    old = os.umask(0o077)
    try:
        assert part.present(spelled) == key.path
    finally:
        os.umask(old)
    assert key.path.read_text() == str(keys[0])
    folders = (key.path.parent, key.path.parent.parent)
    assert [path.stat().st_mode & 0o777 for path in (key.path, *folders)] == [0o644, 0o755, 0o755]
    (tmp_path / "gpg").unlink()
    assert part.present(spelled) == key.path


def test_a_key_for_a_look_alone_goes_elsewhere_unless_the_host_has_it(part, keys, key, tmp_path):
    (tmp_path / "gpg").write_text(str(keys[0]))
    into = tmp_path / "aside/x.asc"
    assert part.present(key, into) == into
    assert into.read_text() == str(keys[0])
    assert not key.path.exists()
    part.present(key)
    into.unlink()
    assert part.present(key, into) == key.path
    assert not into.exists()


def test_a_key_that_does_not_come_says_where_the_host_keeps_it(part, key):
    with pytest.raises(part.PackageError, match="No such file") as refused:
        part.present(key)
    assert f"Put the key of x's repository at {key.path} on the host" in str(refused.value)
    assert not key.path.parent.exists()


def test_what_apt_says_is_said_and_nothing_is_left(part, key, tmp_path, monkeypatch):
    calls = []

    def run(argv, timeout=30):
        calls.append(argv)
        Path(argv[-1]).write_bytes(b"half")
        # As apt does: the first line has the address as it was given.
        return 100, f"Err:1 {argv[-2]}\n  404  Not Found\nE: Failed to fetch https://m/gpg  404  Not Found"

    monkeypatch.setattr(part, "run", run)
    monkeypatch.setattr(part, "APT_HELPER", tmp_path)
    with pytest.raises(part.PackageError, match="E: Failed to fetch https://m/gpg  404  Not Found") as refused:
        part.present(key._replace(address="https://us:s3cret@m/gpg"))
    assert "s3cret" not in str(refused.value)
    assert "at https://m/gpg" in str(refused.value)
    # Everybody on the host can read an argv.
    assert calls[0][-3:-1] == ["download-file", "https://m/gpg"]
    assert "s3cret" not in " ".join(calls[0])
    assert not key.path.exists()


@pytest.fixture
def mirror(keys) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Serves the key to whoever signs in, as a proxy too; (address, what was asked)."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(
                (self.path, self.headers.get("Authorization") or self.headers.get("Proxy-Authorization") or "")
            )
            through = self.path.startswith("http:") and not self.headers.get("Proxy-Authorization")
            data = str(keys[0]).encode() if asked[-1][1] and not through else b""
            self.send_response(407 if through else 200 if data else 401)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


BASIC = "Basic " + base64.b64encode(b"us:s3cret/").decode()


@pytest.mark.skipif(not Path("/usr/lib/apt/apt-helper").exists(), reason="no apt here")
def test_apt_itself_signs_in_with_the_mirrors_account(part, key, mirror, monkeypatch):
    place, asked = mirror
    argvs = []
    run = part.run
    monkeypatch.setattr(part, "run", lambda argv, timeout: argvs.append(argv) or run(argv, timeout))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    part.present(key._replace(address=f"http://us:s3cret%2F@{place}/gpg"))
    assert asked[-1] == ("/gpg", BASIC)
    assert "s3cret" not in str(argvs)
    with pytest.raises(part.PackageError, match="an account with a blank"):
        part.present(key._replace(address=f"http://us:s3%20cret@{place}/gpg", path=key.path.with_name("y")))


@pytest.mark.skipif(not Path("/usr/lib/apt/apt-helper").exists(), reason="no apt here")
def test_apt_keeps_the_account_of_its_proxy_beside_the_mirrors(part, key, mirror, tmp_path, monkeypatch):
    place, asked = mirror
    own = tmp_path / "auth.conf"
    own.write_text(f"machine http://{place} login proxy password pr0xy\n")
    monkeypatch.setattr(part, "APT_AUTH", own)
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    configured = tmp_path / "apt.conf"
    configured.write_text(f'Acquire::http::Proxy "http://{place}";\n')
    monkeypatch.setenv("APT_CONFIG", str(configured))
    part.present(key._replace(address="http://us:s3cret%2F@mirror.test/gpg"))
    assert asked[-1] == ("http://mirror.test/gpg", BASIC)


def test_without_apt_a_mirrors_account_is_used_and_not_shown(part, key, mirror, tmp_path, monkeypatch):
    place, asked = mirror
    monkeypatch.setattr(part, "APT_HELPER", tmp_path / "none")
    monkeypatch.setattr(part, "DNF_CONF", tmp_path / "none")
    with pytest.raises(part.PackageError, match="401") as refused:
        part.present(key._replace(address=f"http://{place}/gpg"))
    part.present(key._replace(address=f"http://us:s3cret%2F@{place}/gpg"))
    assert [auth for _, auth in asked] == ["", BASIC]
    key.path.unlink()
    with pytest.raises(part.PackageError) as refused:
        part.present(key._replace(address="http://us:s3cret@127.0.0.1:9/gpg"))
    assert "s3cret" not in str(refused.value)


def test_without_apt_the_proxy_of_dnf_is_used(part, key, mirror, tmp_path, monkeypatch):
    """A host may reach its mirrors by no other way, and dnf fetched the key itself once."""
    place, asked = mirror
    monkeypatch.setattr(part, "APT_HELPER", tmp_path / "none")
    monkeypatch.setattr(part, "DNF_CONF", tmp_path / "dnf.conf")
    part.DNF_CONF.write_text(f"[main]\nbest=True\nproxy=http://{place}\nproxy_username=us\nproxy_password=s3cret/\n")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    part.present(key._replace(address="http://mirror.invalid/gpg"))
    assert asked == [("http://mirror.invalid/gpg", BASIC)]
