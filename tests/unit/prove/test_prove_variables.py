"""Which of a site's variables a rehearsal needs; real vaults, read by Ansible: tests/ansible_runs/test_vaults.py."""

from pathlib import Path

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.prove import site_inventory, vault_passwords
from onprem_llm.prove.site_variables import Tagged, needed, role_variables


@pytest.mark.parametrize("value", ["prompt", "one@prompt", "/password, one@prompt_ask_vault_pass", "a@b@/password", ""])
def test_what_would_ask_a_person_is_not_taken(value: str) -> None:
    assert vault_passwords.taken({"ANSIBLE_VAULT_IDENTITY_LIST": value}, Path("/folder")) == {}


def test_names_are_followed_as_far_as_they_lead() -> None:
    given = {
        "a": {"onprem_llm_site": {"x": ["{% if one %}1{% endif %}"]}, "one": "{{ hostvars['b'].two }}"},
        "b": {"two": {"{{ three }}": 1}, "three": 3, "four": "{{ two }}"},
    }  # fmt: skip
    assert needed(given, frozenset()) == {
        "a": {"onprem_llm_site": given["a"]["onprem_llm_site"], "one": given["a"]["one"]},
        "b": {"two": given["b"]["two"], "three": 3},
    }


def test_a_roles_own_variables_come_along() -> None:
    assert "container_engine_address_pools" in role_variables()
    given = {"a": {"container_engine_address_pools": [], "container_engine": 1}}
    assert needed(given, role_variables()) == {"a": {"container_engine_address_pools": []}}


@pytest.mark.parametrize("found", ["{{ common | combine(own) }}", Tagged("$ANSIBLE_VAULT;1.1", "!vault")])
def test_settings_that_are_no_mapping_are_refused_by_host(tmp_path: Path, found: str) -> None:
    with pytest.raises(InvalidError, match="onprem_llm_site of host a"):
        site_inventory.inventory_data({"a": ()}, {"a": {"onprem_llm_site": found}}, {"a": {}}, tmp_path, "10.0.0.0/24")


def test_an_encrypted_address_is_not_shown_as_what_stands_on_site(tmp_path: Path) -> None:
    given = {"a": {"onprem_llm_site": {"gateway": {"address": Tagged("$ANSIBLE_VAULT;1.1", "!vault")}}}}
    _, changed = site_inventory.inventory_data({"a": ()}, given, {"a": {}}, tmp_path, "10.0.0.0/24")
    assert [one.on_site for one in changed] == ["the site's"]
