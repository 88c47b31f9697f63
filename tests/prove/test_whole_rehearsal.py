"""`onprem-llm prove` from beginning to end on hosts that are files: what it needs of lab, bundle and proof.

tests/prove kills it in each phase; here a change anywhere in its way is seen within seconds.
"""

from pathlib import Path

from tests.bundle.kit import Keys
from tests.prove.desk import PASSED, PROOF, Desk


def test_a_rehearsal_from_beginning_to_end(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys").make('namespaces="onprem-llm-bundle,onprem-llm-proof"')
    desk = Desk(tmp_path, keys).make(50_000)
    proof = desk.prove()
    assert proof["verdict"] == "passed", proof["reasons"]
    assert [phase["name"] for phase in proof["phases"] if phase["result"] == "ok"] == PASSED
    assert [phase["name"] for phase in proof["phases"]] == PASSED
    assert {path.name for path in desk.bundle.iterdir()} >= PROOF
    assert desk.left() == []
