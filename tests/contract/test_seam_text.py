"""User text in an order file stays text: tests/ansible_runs/test_user_text.py tries it; here, that no play departs."""

from pathlib import Path

from onprem_llm import fast_yaml

ROOT = Path(__file__).resolve().parents[2]


def test_orders_are_read_by_the_lookup_alone() -> None:
    """`include_vars`, `vars_files` and `-e @order.json` would make templates of what users wrote."""
    for path in (ROOT / "playbooks").glob("*.yml"):
        for play in fast_yaml.read(path.read_text(encoding="utf-8")):
            orders = [text for name, text in play.get("vars", {}).items() if name.endswith("_order")]
            assert all("lookup('ansible.builtin.file', onprem_llm_order_file) | from_json" in one for one in orders), (
                path
            )
            assert "vars_files" not in play, path
        assert "include_vars" not in path.read_text(encoding="utf-8"), path
