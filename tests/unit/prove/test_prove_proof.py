"""The verdict: what fails it, what does not, and the file that says so."""

import json
import subprocess
from pathlib import Path

import pytest

from onprem_llm.lab.attempts import Attempt
from onprem_llm.prove import explained
from onprem_llm.prove.likeness import Substitute
from onprem_llm.prove.proof import Phase, Proof, write

T = "2026-11-21T10:00:{:02d}.000+00:00"


def attempt(**changed: object) -> Attempt:
    whole: dict[str, object] = {
        "host": "gpu1", "protocol": "tcp", "destination": "198.51.100.7", "port": 443, "name": None,
        "command": "python call_home.py", "parents": ("sh",), "unit": None,
        "container": {"name": "tiny-0", "image": "example/engine:1"}, "note": None, "pid": 7,
        "first": T.format(15), "last": T.format(16),
    }  # fmt: skip
    return Attempt(**(whole | changed))


NTP = {
    "command": "/usr/lib/systemd/systemd-timesyncd", "container": None, "unit": "systemd-timesyncd.service",
    "protocol": "udp", "port": 123,
}  # fmt: skip


def proof() -> Proof:
    made = Proof("bundle", "inventory.ini", T.format(0))
    made.phases = [
        Phase("hosts", "substituted", "containers", began=T.format(1), seconds=8),
        Phase("deploy tiny", "real", began=T.format(10), seconds=60, bytes=2_000_000),
        Phase("first token tiny", "real", began=T.format(50), seconds=3),
    ]
    made.substitutes = [Substitute("GPUs", "8x H100", "8 stand-ins", "gpu1")]
    made.watched = {"gpu1": None}
    return made


def test_all_well_passes_and_the_text_still_says_what_was_substituted() -> None:
    made = proof()
    assert (made.verdict, made.reasons) == ("passed", [])
    assert "on substitutes: hosts" in made.text
    assert "8 stand-ins" in made.text
    assert "none" in made.text


def test_one_unexplained_attempt_fails_it_and_names_host_process_container_and_phase() -> None:
    made = proof()
    made.attempts = [attempt()]
    assert made.verdict == "failed"
    assert made.reasons == ["gpu1 tried to reach 198.51.100.7:443/tcp: python call_home.py in container tiny-0"]
    line = next(line for line in made.text.splitlines() if "call_home.py" in line)
    assert "UNEXPLAINED" in line
    assert "deploy tiny" in line


def test_an_explained_attempt_is_shown_with_why_and_passes() -> None:
    made = proof()
    made.attempts = [attempt(**NTP)]
    assert made.verdict == "passed"
    assert "clock" in made.text
    assert made.as_json()["attempts"][0]["explained"]


@pytest.mark.parametrize(
    "changed",
    [
        {"container": {"name": "x", "image": "y"}},  # the same out of a container
        {"unit": None},
        {"unit": "other.service"},
        {"port": 443},
        {"port": 53, "name": "time.example.com"},
        {"port": 53, "name": None},
    ],
)
def test_what_only_looks_like_an_explained_one_is_not(changed: dict[str, object]) -> None:
    assert explained.why(attempt(**NTP)) is not None
    assert explained.why(attempt(**{**NTP, **changed})) is None


def test_a_look_for_updates_is_explained_by_its_archive_and_no_other_name() -> None:
    asks = {**NTP, "unit": "apt-daily.service", "port": 53}
    for name, known in {"deb.debian.org": True, "archive.ubuntu.com": True, "models.example.com": False}.items():
        assert (explained.why(attempt(**asks, name=name)) is not None) == known, name


def test_every_entry_of_the_table_says_which_program_and_why() -> None:
    for entry in explained.table():
        assert set(entry) <= {*explained.FIELDS, "why"}
        assert entry["unit"]
        # A name server is asked for anything: without the name, the program would be let through with all of it.
        assert entry["port"] != 53 or entry.get("name"), entry
        assert len(str(entry["why"])) > 20


def test_a_recorder_that_cannot_be_believed_fails_it() -> None:
    made = proof()
    made.watched = {"gpu1": "its recorder was too slow for 3 packets"}
    assert made.reasons == ["gpu1: its recorder was too slow for 3 packets"]


def test_nothing_watched_or_nothing_answered_is_no_pass() -> None:
    made = proof()
    made.watched = {}
    assert made.verdict == "failed"
    made = proof()
    made.phases[2].kind = "not tried"
    assert made.reasons == ["no deployment answered: none was tried on these hosts"]


def test_a_failed_phase_fails_it() -> None:
    made = proof()
    made.phases[1].error = "onprem-llm deploy: exit code 5\nthe last lines of a log"
    assert made.reasons == ["deploy tiny: onprem-llm deploy: exit code 5"]


def test_the_file_is_canonical_signed_and_no_old_signature_stays(tmp_path: Path) -> None:
    key, allowed = tmp_path / "key", tmp_path / "allowed"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", str(key)], check=True)
    allowed.write_text("me " + (tmp_path / "key.pub").read_text())
    path = write(proof(), tmp_path, key)
    data = path.read_bytes()
    document = json.loads(data)
    assert data == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    assert document["verdict"] == "passed"
    assert {"name": "hosts", "kind": "substituted", "result": "ok"}.items() <= document["phases"][0].items()
    verify = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        str(allowed),
        "-I",
        "me",
        "-n",
        "onprem-llm-proof",
        "-s",
        f"{path}.sig",
    ]
    assert subprocess.run(verify, input=data, capture_output=True, check=False).returncode == 0
    assert subprocess.run(verify, input=data + b" ", capture_output=True, check=False).returncode != 0
    write(proof(), tmp_path, None)
    assert not (tmp_path / "proof.json.sig").exists()
