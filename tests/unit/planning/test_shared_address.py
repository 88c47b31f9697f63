"""Two gateway hosts: one address, one set of routes, and a copy of the book."""

import copy

import pytest
import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan
from onprem_llm.rendering.keepalived import CONFIG, PROJECT
from onprem_llm.spec.site import Site

VIP = "10.0.0.100"


def site(**gateway: object) -> Site:
    return made.site(open_webui={"enabled": False}, gateway={"address": VIP, **gateway})


def hosts(second: bool = True) -> dict[str, Facts]:
    facts = made.lab()
    for state in facts.values():
        state["interfaces"] = dict.fromkeys(state["addresses"], "eth0")
    if second:
        facts["lab-2"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    return facts


def model() -> object:
    return made.deployment(made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000))


def steps(result: Plan, word: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(step.title, step.hosts) for step in result.steps if word in step.title]


def config(result: Plan, host: str) -> str:
    return result.files[host][PROJECT][CONFIG]


def test_both_share_it_one_after_another() -> None:
    result = made.planned(hosts(), model(), site())
    assert steps(result, "Share") == [
        (f"Share {VIP} on lab-1", ("lab-1",)),
        (f"Share {VIP} on lab-2", ("lab-2",)),
    ]
    first, second = config(result, "lab-1"), config(result, "lab-2")
    assert "unicast_src_ip 10.0.0.2\n    unicast_peer {\n        10.0.0.3 min_ttl 255\n" in first
    assert "unicast_src_ip 10.0.0.3\n    unicast_peer {\n        10.0.0.2 min_ttl 255\n" in second
    assert "interface eth0" in first


def test_nothing_to_do_the_second_time() -> None:
    facts = hosts()
    done = made.planned(facts, model(), site())
    facts = made.applied(done, facts)
    # Whoever holds it has one address more.
    facts["lab-1"]["addresses"].append(VIP)
    facts["lab-1"]["interfaces"][VIP] = "eth0"
    assert made.planned(facts, model(), site()).is_noop


def test_a_configuration_that_somebody_edited_is_put_right_with_a_restart() -> None:
    """compose.yaml is the same, and keepalived runs on with what it read."""
    facts = made.applied(made.planned(hosts(), model(), site()), hosts())
    facts["lab-1"]["projects"][PROJECT]["files"][CONFIG] = "0" * 64
    (step,) = made.planned(facts, model(), site()).steps
    assert step.hosts == ("lab-1",)
    assert step.orders["lab-1"]["projects"][0]["recreate"]


def test_clients_and_certificates_have_the_address() -> None:
    result = made.planned(hosts(), model(), site())
    assert result.endpoints[0].url == f"https://{VIP}:8080/v1"
    (step,) = [one for one in result.steps if one.kind == "gateway"]
    assert set(step.orders) == {"lab-1", "lab-2"}
    for order in step.orders.values():
        assert VIP in order["tls"]["names"]
        assert order["keys_host"] == order["tls"]["ca_host"] == "lab-1"


def test_engines_let_both_gateways_in() -> None:
    facts = hosts()
    result = made.planned(facts, model(), site())
    (firewall,) = [o["firewall"] for s in result.steps for o in s.orders.values() if "firewall" in o]
    assert firewall["sources"] == ["10.0.0.2", "10.0.0.3"]


def test_engines_of_other_deployments_let_a_new_gateway_in() -> None:
    facts = hosts(second=False)
    other = made.deployment(made.MODEL.format(name="other", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8005))
    facts = made.applied(made.planned(facts, other, site()), facts)
    facts["lab-2"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    result = made.planned(facts, model(), site())
    orders = [step.orders["lab-1"] for step in result.steps if "firewall" in step.orders.get("lab-1", {})]
    assert orders[0]["firewall"]["sources"] == ["10.0.0.2", "10.0.0.3"]
    assert 8005 in orders[0]["firewall"]["ports"]


@pytest.mark.parametrize(("listen", "extra"), [("all", ""), ("cluster", f"    bind {VIP}:8080 transparent ssl ")])
def test_the_gateway_listens_on_it_also_where_it_is_not(listen: str, extra: str) -> None:
    result = made.planned(hosts(), model(), site(listen=listen))
    text = result.files["lab-2"]["gateway"]["conf/haproxy.cfg"]
    assert (extra in text) if extra else (" transparent" not in text)


def test_gateways_tell_each_other_their_keys() -> None:
    result = made.planned(hosts(), model(), site())
    assert '"10.0.0.3"' in result.files["lab-1"]["gateway"]["conf/peers.json"]
    alone = made.planned(hosts(second=False), model(), site())
    assert "conf/peers.json" not in alone.files["lab-1"]["gateway"]


def test_one_host_alone_may_have_it() -> None:
    result = made.planned(hosts(second=False), model(), site())
    assert steps(result, "Share") == [(f"Share {VIP} on lab-1", ("lab-1",))]
    assert "unicast" not in config(result, "lab-1")


def test_it_goes_with_its_setting() -> None:
    facts = hosts()
    facts = made.applied(made.planned(facts, model(), site()), facts)
    result = made.planned(facts, model(), made.site(open_webui={"enabled": False}))
    assert steps(result, "Give up") == [
        ("Give up the shared address", ("lab-1",)),
        ("Give up the shared address", ("lab-2",)),
    ]
    after = made.applied(result, facts)
    assert PROJECT not in after["lab-1"]["projects"]


def test_it_goes_with_the_last_deployment_before_the_gateway() -> None:
    facts = hosts()
    facts = made.applied(made.planned(facts, model(), site()), facts)
    result = plan(site(), made.without(facts, "tiny"), made.current(facts))
    (step,) = [one for one in result.steps if one.kind == "remove"]
    for name in ("lab-1", "lab-2"):
        listed = [project["name"] for project in step.orders[name]["projects"]]
        assert listed.index(PROJECT) < listed.index("gateway")


@pytest.mark.parametrize(
    ("gateway", "said"),
    [
        ({"listen": "local"}, "found listen: local and address: 10.0.0.100"),
        ({"address": "10.0.0.2"}, "10.0.0.2 is an address of lab-1 itself"),
        ({"address": "fd00::1"}, "fd00::1 is IPv6, and lab-1 is reached at 10.0.0.2"),
        ({"interface": "bond7"}, "found bond7, which lab-1 does not have"),
    ],
)
def test_what_cannot_be_shared_is_said(gateway: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        made.planned(hosts(), model(), site(**gateway))


def test_an_unknown_interface_is_asked_for() -> None:
    facts = hosts()
    for state in facts.values():
        state["interfaces"] = {}
    with pytest.raises(InvalidError, match=r"no network interface has 10\.0\.0\.2"):
        made.planned(facts, model(), site())
    assert "interface eth9" in config(made.planned(facts, model(), site(interface="eth9")), "lab-1")


def test_the_book_is_copied_last() -> None:
    result = made.planned(hosts(), model(), site())
    assert result.steps[-1].kind == "book_copy"
    assert dict(result.steps[-1].orders) == {"lab-2": {"keys_host": "lab-1"}}
    alone = made.planned(hosts(second=False), model(), site())
    assert "book_copy" not in [step.kind for step in alone.steps]


def test_a_copy_that_is_behind_is_brought_in_line_and_said() -> None:
    facts = hosts()
    facts = made.applied(made.planned(facts, model(), site()), facts)
    for change in (
        lambda state: state["book"]["deployments"].clear(),
        lambda state: state["keys"].pop("tiny"),
        lambda state: state["book"]["deployments"]["tiny"].update(revision=7),
    ):
        moved = copy.deepcopy(facts)
        change(moved["lab-2"])
        result = made.planned(moved, model(), site())
        assert result.steps[-1].kind == "book_copy"
        assert ("lab-2", "the book's copy") in [(one.host, one.subject) for one in result.changes]
        # The recorded gateway's word counts, whatever the copy says.
        assert result.revision == 1
