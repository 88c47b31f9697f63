"""Names and folders of a rehearsal: nobody else's are touched, and what cannot be written is known before it begins."""

import json
import threading
import time
from pathlib import Path

import pytest

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, RefusedError
from onprem_llm.lab import lifecycle, state
from onprem_llm.lab.state import Lab
from onprem_llm.prove import hosts, proving, within
from onprem_llm.prove.likeness import Machine
from onprem_llm.prove.places import check_writable, hold, remove_stale, site_folder, wait_for_commands
from onprem_llm.prove.proof import Proof
from onprem_llm.prove.proving import Wanted, prove


@pytest.fixture(autouse=True)
def removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the labs a folder of this test's own; return the names of those that are removed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    names: list[str] = []
    monkeypatch.setattr(lifecycle, "down", lambda name, say: names.append(name))
    return names


def lab(inventory: Path, closed: bool = True) -> None:
    state.save(Lab("prove", "debian-13", False, "575.57.08", None, "10.213.0.0/24", str(inventory), closed=closed))


def bundle(path: Path, content: str) -> Path:
    path.mkdir(exist_ok=True)
    (path / "manifest.json").write_text(content)
    return path


@pytest.mark.parametrize("closed", [True, False])
def test_a_lab_that_is_not_this_rehearsals_stays(tmp_path: Path, removed: list[str], closed: bool) -> None:
    lab(tmp_path / "inventory.ini" if closed else tmp_path / "prove-lab.ini", closed)
    with pytest.raises(RefusedError, match="lab prove exists") as error:
        hosts.own("prove", tmp_path)
    assert "--name" in str(error.value.hint)
    with pytest.raises(RefusedError):
        hosts.down("prove", tmp_path, print)
    assert removed == []


def test_what_this_rehearsal_left_is_removed_and_what_it_never_made_is_not(tmp_path: Path, removed: list[str]) -> None:
    hosts.down("prove", tmp_path, print)
    assert removed == []
    lab(tmp_path / "prove-lab.ini")
    hosts.down("prove", tmp_path, print)
    assert removed == ["prove"]


def test_the_lab_that_a_former_bundle_in_the_same_place_left_is_this_rehearsals(
    tmp_path: Path, removed: list[str]
) -> None:
    work, made, other = tmp_path / "work", bundle(tmp_path / "bundle", "one"), bundle(tmp_path / "other", "one")
    with site_folder(work, (), (made,)) as site:
        lab(site.parent / "prove-lab.ini")
    bundle(made, "two")
    with site_folder(work, (), (made,)) as anew:
        assert hosts.own("prove", anew.parent) is not None
        hosts.down("prove", anew.parent, print)
        assert removed == ["prove"]
    # Another bundle's, or one in another --work, is another rehearsal's.
    for parent, folder in ((work, other), (tmp_path / "work2", made)):
        with site_folder(parent, (), (folder,)) as strange, pytest.raises(RefusedError, match="lab prove exists"):
            hosts.down("prove", strange.parent, print)
    lab(site.parent / "prove2-lab.ini")
    with pytest.raises(RefusedError, match="lab prove exists"):
        hosts.own("prove", site.parent)
    assert removed == ["prove"]


def test_two_rehearsals_do_not_have_one_lab() -> None:
    with hosts.held("prove"):
        with pytest.raises(RefusedError, match="lab prove"), hosts.held("prove"):
            pass
        with hosts.held("prove2"):
            pass
    with hosts.held("prove"):
        pass


def test_two_rehearsals_of_one_bundle_do_not_meet(tmp_path: Path) -> None:
    made = bundle(tmp_path / "bundle", "one")
    with site_folder(tmp_path / "work", (), (made,)) as site:
        assert site.parent.is_dir()
        with pytest.raises(RefusedError, match="is at work"), site_folder(tmp_path / "work", (), (made,)):
            pass
    with site_folder(tmp_path / "work", (), (made,)) as again:
        assert again == site


def test_what_a_former_bundle_brought_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    work, made, base = tmp_path / "work", bundle(tmp_path / "bundle", "one"), bundle(tmp_path / "base", "base")
    with site_folder(work, (), (made,)) as first:
        first.mkdir()
    with site_folder(work, (base,), (made,)) as other:
        assert other != first
    with site_folder(work, (made,), (base,)) as turned:
        assert turned != other
    bundle(made, "two")
    with site_folder(work, (), (made,)) as second:
        assert second != first
        remove_stale(second.parent)
        assert not first.parent.exists()
        assert second.parent.exists()
        # Others' stay: they lie elsewhere.
        assert other.parent.exists()


def test_a_former_bundle_that_is_at_work_stays(tmp_path: Path) -> None:
    made = bundle(tmp_path / "bundle", "one")
    with site_folder(tmp_path, (), (made,)) as first:
        bundle(made, "two")
        with site_folder(tmp_path, (), (made,)) as second:
            remove_stale(second.parent)
        assert first.parent.exists()


def test_the_lab_of_a_folder_as_they_were_once_called_is_nobodys_any_more(tmp_path: Path, removed: list[str]) -> None:
    with site_folder(tmp_path / "work", (), (bundle(tmp_path / "bundle", "one"),)) as site:
        lab(tmp_path / "work" / "0123456789ab" / "prove-lab.ini")
        hosts.down("prove", site.parent, print)
        assert removed == ["prove"]
        for strange in ("elsewhere/0123456789ab", "work/0123456789ab-0123456789ab"):
            lab(tmp_path / strange / "prove-lab.ini")
            with pytest.raises(RefusedError, match="lab prove exists"):
                hosts.down("prove", site.parent, print)


def test_a_command_that_a_killed_rehearsal_had_begun_is_waited_for(tmp_path: Path) -> None:
    made, said = bundle(tmp_path / "bundle", "one"), []
    with site_folder(tmp_path, (), (made,)) as first:
        pass
    bundle(made, "two")
    with site_folder(tmp_path, (), (made,)) as site:
        at_work = threading.Event()

        def command() -> None:
            with hold(first.parent / within.LOCK, "a command"):
                at_work.set()
                time.sleep(0.5)

        thread = threading.Thread(target=command)
        thread.start()
        at_work.wait()
        remove_stale(site.parent)
        assert first.parent.exists(), "it works there"
        wait_for_commands(site.parent, said.append)
        assert len(said) == 1
        thread.join()
        wait_for_commands(site.parent, said.append)
        assert len(said) == 1
        with (
            hold(site.parent / within.LOCK, "a command"),
            pytest.raises(RefusedError, match=r"a rehearsal that was killed, in .* is at work"),
        ):
            wait_for_commands(site.parent, said.append, 0)


def test_what_rehearsals_left_that_named_their_folders_otherwise_goes_too(tmp_path: Path) -> None:
    former, at_work, short, no_lock = (tmp_path / name for name in ("0123456789ab", "f" * 12, "f" * 11, "e" * 12))
    for folder in (former, at_work, short, no_lock):
        (folder / "site").mkdir(parents=True)
        if folder != no_lock:
            (folder / "lock").touch()
    with (
        site_folder(tmp_path, (), (bundle(tmp_path / "bundle", "one"),)) as site,
        hold(at_work / "lock", "a rehearsal"),
    ):
        remove_stale(site.parent)
        assert site.parent.exists()
    assert not former.exists()
    # The last two are nobody's rehearsals: --work may name any folder.
    assert [folder.exists() for folder in (at_work, short, no_lock)] == [True] * 3


def test_the_manifest_of_a_volume_is_the_bundles(tmp_path: Path) -> None:
    made = tmp_path / "bundle"
    made.mkdir()
    volume = bundle(made / "vol-1", "one")
    with site_folder(tmp_path, (), (made,)) as first:
        pass
    bundle(volume, "two")
    with site_folder(tmp_path, (), (made,)) as second:
        assert second != first


def test_a_place_without_room_for_the_proof_is_found_before() -> None:
    with pytest.raises(InvalidError, match="/proc: the proof cannot be written") as error:
        check_writable(Path("/proc"))
    assert "--out" in str(error.value.hint)


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wanted:
    """Return what `prove` is asked for, in a world where the inventory is empty and an engine answers."""
    monkeypatch.setattr(proving, "routes", lambda connection: {})
    monkeypatch.setattr(proving, "variables", lambda connection: {})
    monkeypatch.setattr(proving.engine, "client", lambda: None)
    monkeypatch.setattr(proving.hosts, "machine", lambda: Machine((), {}, "x86_64", "6.1"))
    folder = bundle(tmp_path / "bundle", "one")
    return Wanted((folder,), tmp_path / "allowed", (), (), None, None, tmp_path / "work", 0, "prove", False)


class Rehearsed:
    """A rehearsal that ends with hosts that stay."""

    def __init__(self, *asked: object) -> None:
        pass

    def run(self) -> OnpremError:
        return OnpremError("docker failed")


def test_the_proof_is_shown_and_written_before_it_is_said_that_hosts_stay(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "Rehearsal", Rehearsed)
    written = wanted.folders[0] / "proof.json"
    shown: list[bool] = []

    def show(proof: Proof) -> None:
        shown.append(written.exists())

    with pytest.raises(OnpremError, match="docker failed"):
        prove(wanted, Connection(Path("/inventory.ini")), print, show)
    assert shown == [False]
    assert json.loads(written.read_text())["ended"]


def test_a_strange_lab_is_refused_before_anything_is_loaded(
    wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "Rehearsal", None)
    lab(tmp_path / "inventory.ini")
    with pytest.raises(RefusedError, match="lab prove exists"):
        prove(wanted, Connection(Path("/inventory.ini")), print, lambda proof: None)


def test_a_key_that_cannot_sign_is_found_before(wanted: Wanted, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("no key\n")
    key.chmod(0o600)
    asked = Wanted(**{**vars(wanted), "sign_key": key})
    with pytest.raises(OnpremError, match="could not sign"):
        prove(asked, Connection(Path("/inventory.ini")), print, lambda proof: None)
    assert not list((tmp_path / "bundle").glob("proof*"))
