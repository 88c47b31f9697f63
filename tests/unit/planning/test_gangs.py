"""A replica over several hosts: where its parts go, what they are told, and that they change as one."""

import json
from datetime import UTC, datetime

import pytest
import recorded_facts as made
from gang_lab import actions, after, gang, hosts, on_cpus, placed, service
from planning_lab import Hosts, listener, mark

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan
from onprem_llm.probe import parse_current
from onprem_llm.running import running
from onprem_llm.spec.site import Site


def planned(facts: Hosts, text: str, **more: object) -> Plan:
    return made.planned(facts, made.deployment(text), **more)  # type: ignore[arg-type]


def deploy(facts: Hosts, text: str) -> Hosts:
    return made.applied(planned(facts, text), facts)


def refused(facts: Hosts, text: str) -> InvalidError:
    with pytest.raises(InvalidError) as raised:
        planned(facts, text)
    return raised.value


def test_each_part_goes_to_a_host_of_its_own_with_its_share_of_the_gpus() -> None:
    done = planned(hosts(), gang())
    assert placed(done) == {"wide-0": "lab-1", "wide-0-rank1": "lab-2"}
    assert service(done, "wide-0")["labels"]["onprem-llm.gpus"] == "GPU-lab-1-0,GPU-lab-1-1"
    assert service(done, "wide-0-rank1")["labels"]["onprem-llm.gpus"] == "GPU-lab-2-0,GPU-lab-2-1"


def test_parts_are_told_of_each_other_and_only_the_first_one_answers() -> None:
    done = planned(hosts(), gang())
    first, second = service(done, "wide-0"), service(done, "wide-0-rank1")
    for part, rank in ((first, "0"), (second, "1")):
        assert part["network_mode"] == "host"
        assert part["extra_hosts"] == {"wide-0": "10.0.0.2", "wide-0-rank1": "10.0.0.3"}
        assert "ports" not in part
        assert after(part["command"], "--nnodes") == "2"
        assert after(part["command"], "--node-rank") == rank
        assert after(part["command"], "--master-addr") == "10.0.0.2"
        assert after(part["command"], "--master-port") == "7601"
        assert after(part["entrypoint"], "--leader") == "10.0.0.2:7600"
        assert part["environment"]["GLOO_SOCKET_IFNAME"] == "eth0"
    assert first["environment"]["VLLM_HOST_IP"] == "10.0.0.2"
    assert second["environment"]["VLLM_HOST_IP"] == "10.0.0.3"
    assert (after(first["command"], "--host"), after(first["command"], "--port")) == ("10.0.0.2", "8000")
    assert "--headless" in second["command"]
    assert {"--headless"}.isdisjoint(first["command"])
    assert {"--port", "--served-model-name"}.isdisjoint(second["command"])
    assert after(first["entrypoint"], "--revision") == after(second["entrypoint"], "--revision")
    assert first["image"] == second["image"]
    assert first["volumes"][0] == second["volumes"][0]


def test_the_gateway_knows_one_replica_and_the_book_all_of_its_hosts() -> None:
    facts = deploy(hosts(), gang())
    assert made.in_rotation(facts, "wide") == {"wide-0"}
    entry = facts["lab-1"]["book"]["deployments"]["wide"]
    assert entry["placement"] == {"wide-0": {"host": "lab-1", "revision": 1, "members": ["lab-2"]}}


def test_a_second_deploy_changes_nothing() -> None:
    facts = deploy(hosts(), gang())
    assert planned(facts, gang()).is_noop


def test_all_or_nothing_and_the_error_says_what_each_host_lacks() -> None:
    facts = hosts(2)
    facts["lab-2"]["gpus"]["devices"][0]["processes"] = [{"pid": 42, "name": "python", "memory": 100}]
    error = refused(facts, gang())
    assert "no 2 hosts can carry wide-0 together: it needs 2 GPUs of one model on each (4 in all)" in error.message
    assert "GPU 0 is used by python (pid 42)" in (error.details or "")


def test_unequal_gpus_are_no_gang() -> None:
    facts = hosts(2)
    facts["lab-2"]["gpus"]["devices"] = [made.gpu("lab-2", index, made.L4) for index in range(2)]
    error = refused(facts, gang())
    assert "unlike GPUs: NVIDIA H100 80GB HBM3, NVIDIA L4" in error.message


def test_auto_takes_one_host_where_one_can_carry_it_and_else_the_fewest() -> None:
    assert set(placed(planned(hosts(3, 4), gang(nodes="auto")))) == {"wide-0"}
    assert set(placed(planned(hosts(3, 2), gang(nodes="auto")))) == {"wide-0", "wide-0-rank1"}
    assert len(placed(planned(hosts(4, 1), gang(nodes="auto")))) == 4


def test_auto_stays_as_it_stands_when_a_larger_host_comes() -> None:
    facts = deploy(hosts(2), gang(nodes="auto"))
    facts |= {"lab-3": hosts(3, 8)["lab-3"]}
    assert planned(facts, gang(nodes="auto")).is_noop


def test_auto_keeps_its_shape_with_another_image_and_on_a_drained_host() -> None:
    facts = deploy(hosts(2), gang(nodes="auto"))
    facts |= {"lab-3": hosts(3, 8)["lab-3"]}
    wider = planned(facts, gang(nodes="auto", image="vllm/vllm-openai:v0.21.0"))
    assert set(placed(wider)) == {"wide-0", "wide-0-rank1"}
    facts = hosts(3)
    facts["lab-1"] = hosts(1, 4)["lab-1"]
    facts = mark(deploy(facts, gang(nodes="auto")), "lab-1", "drained")
    assert actions(planned(facts, gang(nodes="auto").replace("8192", "4096"))) == {"wide-0": "update"}


def test_a_gang_that_goes_on_is_not_stopped_where_it_is_only_asked_again() -> None:
    facts = deploy(hosts(2), gang())
    done = planned(facts, gang("readiness: {timeout: 7}\n"))
    orders = [project for step in done.steps for order in step.orders.values() for project in order.get("projects", [])]
    assert [(project["name"], project["anew"]) for project in orders] == [("wide-0", False), ("wide-0-rank1", False)]
    again = planned(facts, gang().replace("8192", "1024"))
    wave = next(step for step in again.steps if step.title == "Replace wide-0")
    assert all(project["anew"] for order in wave.orders.values() for project in order["projects"])


def test_an_image_from_before_knows_no_other_hosts() -> None:
    error = refused(hosts(), gang(image="vllm/vllm-openai:v0.11.0"))
    assert "vLLM knows that (--nnodes) from v0.11.1 on" in error.message
    assert planned(hosts(), gang(image="vllm/vllm-openai:v0.11.1"))


def test_a_changed_model_yaml_changes_all_parts_together() -> None:
    facts = deploy(hosts(2), gang())
    done = planned(facts, gang().replace("8192", "1024"))
    assert actions(done) == {"wide-0": "update", "wide-0-rank1": "update"}
    wave = next(step for step in done.steps if step.title == "Replace wide-0")
    assert [project["name"] for order in wave.orders.values() for project in order["projects"]] == [
        "wide-0",
        "wide-0-rank1",
    ]
    assert all(project["state"] == "started" for order in wave.orders.values() for project in order["projects"])
    back = wave.undo[0]
    assert {name for name, order in back.orders.items() if order["projects"]} == {"lab-1", "lab-2"}


def test_an_update_drains_once_and_ends_as_one_replica() -> None:
    facts = deploy(hosts(2), gang())
    text = gang().replace("8192", "1024")
    done = planned(facts, text)
    drains = [step for step in done.steps if step.title.startswith("Drain")]
    assert [step.orders["lab-1"]["drain"] for step in drains] == [["wide/wide-0"]]
    then = made.applied(done, facts)
    assert made.in_rotation(then, "wide") == {"wide-0"}
    assert planned(then, text).is_noop
    assert then["lab-1"]["book"]["deployments"]["wide"]["placement"]["wide-0"]["revision"] == 2


def test_a_failed_update_brings_all_parts_back() -> None:
    facts = deploy(hosts(2), gang())
    done = planned(facts, gang().replace("8192", "1024"))
    then = made.failed_at(done, facts, "Replace wide-0", missed={"lab-2"})
    assert made.in_rotation(then, "wide") == {"wide-0"}
    assert planned(then, gang()).is_noop


def test_a_failed_change_leaves_no_new_part_behind() -> None:
    """It would wait for ever for parts that have never heard of it, and hold its GPUs."""
    facts = deploy(hosts(3), gang())
    del facts["lab-2"]["projects"]["wide-0-rank1"]
    done = planned(facts, gang())
    then = made.failed_at(done, facts, "Replace wide-0")
    assert then["lab-1"]["projects"] == facts["lab-1"]["projects"]
    assert "wide-0-rank1" not in then["lab-2"]["projects"]


def test_with_free_hosts_the_new_gang_comes_before_the_old_one_goes() -> None:
    facts = deploy(hosts(4), gang())
    for host in ("lab-3", "lab-4"):
        facts[host]["weights"] = facts["lab-1"]["weights"]
    done = planned(facts, gang().replace("8192", "1024"))
    assert placed(done) == {"wide-1": "lab-3", "wide-1-rank1": "lab-4"}
    assert min(len(made.in_rotation(then, "wide")) for _, then in made.moments(done, facts)) == 1
    then = made.applied(done, facts)
    assert [name for state in then.values() for name in state["projects"] if name.startswith("wide")] == [
        "wide-1",
        "wide-1-rank1",
    ]


def test_a_part_that_is_gone_takes_the_others_along() -> None:
    facts = deploy(hosts(2), gang())
    del facts["lab-2"]["projects"]["wide-0-rank1"]
    done = planned(facts, gang())
    assert actions(done) == {"wide-0": "restart", "wide-0-rank1": "create"}
    assert planned(made.applied(done, facts), gang()).is_noop


def test_a_part_that_ended_takes_the_others_along_and_the_plan_says_why() -> None:
    facts = deploy(hosts(2), gang())
    facts["lab-2"]["projects"]["wide-0-rank1"]["containers"][0].update(state="exited", health=None, exit_code=1)
    done = planned(facts, gang())
    assert actions(done) == {"wide-0": "restart", "wide-0-rank1": "restart"}
    reasons = next(change.reasons for change in done.changes if change.subject == "wide-0")
    assert reasons == ("all of its gang start anew with wide-0-rank1 on lab-2: container is exited (exit code 1)",)


def test_a_gang_with_a_silent_member_is_left_alone_and_not_moved() -> None:
    facts = deploy(hosts(4), gang())
    done = planned(facts, gang(), unreachable=["lab-2"])
    assert not placed(done)
    assert any("wide-0 is left as it is: lab-2 did not answer" in text for text in done.warnings)
    then = made.applied(done, facts)
    assert "wide-0" in then["lab-1"]["projects"]
    assert then["lab-1"]["book"]["deployments"]["wide"]["placement"]["wide-0"]["members"] == ["lab-2"]


def test_a_lost_member_moves_the_whole_gang() -> None:
    facts = mark(deploy(hosts(3), gang()), "lab-2", "lost")
    for state in facts.values():
        state["weights"] = facts["lab-1"]["weights"]
    done = planned(facts, gang(), unreachable=["lab-2"])
    assert placed(done) == {"wide-0": "lab-1", "wide-0-rank1": "lab-3"}
    seen = {name: state for name, state in facts.items() if name != "lab-2"}
    then = made.applied(done, seen)
    assert then["lab-1"]["book"]["deployments"]["wide"]["placement"]["wide-0"]["members"] == ["lab-3"]


def test_a_drained_member_takes_the_gang_out_of_rotation() -> None:
    facts = mark(deploy(hosts(2), gang()), "lab-2", "drained")
    done = planned(facts, gang())
    assert made.in_rotation(made.applied(done, facts), "wide") == set()


def test_down_takes_every_part_along() -> None:
    facts = deploy(hosts(2), gang())
    done = plan(Site(), made.without(facts, "wide"), parse_current(facts))
    assert actions(done) == {"wide-0": "remove", "wide-0-rank1": "remove"}
    then = made.applied(done, facts)
    assert not any(name.startswith("wide") for state in then.values() for name in state["projects"])


def test_scale_adds_a_gang_and_takes_one_away() -> None:
    facts = deploy(hosts(4), gang())
    for state in facts.values():
        state["weights"], state["images"] = facts["lab-1"]["weights"], facts["lab-2"]["images"]
    more = made.applied(made.planned(facts, made.again(facts, "wide", replicas=2), verb="scale"), facts)
    assert made.in_rotation(more, "wide") == {"wide-0", "wide-1"}
    placement = more["lab-1"]["book"]["deployments"]["wide"]["placement"]
    assert placement["wide-1"] == {"host": "lab-3", "revision": 2, "members": ["lab-4"]}
    fewer = made.applied(made.planned(more, made.again(more, "wide", replicas=1), verb="scale"), more)
    assert made.in_rotation(fewer, "wide") == {"wide-0"}
    assert not any(name.startswith("wide-1") for state in fewer.values() for name in state["projects"])


def test_two_gangs_on_the_same_hosts_have_ports_of_their_own() -> None:
    facts = deploy(hosts(2, 4), gang())
    done = planned(facts, gang().replace("name: wide", "name: other\nport: 8100"))
    label = service(done, "other-0")["labels"]["onprem-llm.gang_ports"]
    assert label == "7602-7603"
    assert service(done, "other-0-rank1")["labels"]["onprem-llm.gang_ports"] == label


def test_a_port_that_somebody_has_is_passed_over_and_none_at_all_is_said() -> None:
    facts = hosts(2)
    facts["lab-2"]["listeners"].append(listener(7601, "nginx"))
    assert service(planned(facts, gang()), "wide-0")["labels"]["onprem-llm.gang_ports"] == "7602-7603"
    site = made.site(gang_ports={"first": 7600, "last": 7601})
    with pytest.raises(InvalidError) as raised:
        planned(facts, gang(), site=site)
    assert "7601 is used by nginx (pid 42)" in (raised.value.details or "")
    assert "lab-2" in (raised.value.details or "")


def test_only_members_reach_a_gangs_ports() -> None:
    done = planned(hosts(3), gang())
    walls = {
        host: order["firewall"]["gangs"]
        for step in done.steps
        for host, order in step.orders.items()
        if "gangs" in order.get("firewall", {})
    }
    wall = [{"ports": [7600, 7601], "sources": ["10.0.0.2", "10.0.0.3"]}]
    assert walls == {"lab-1": wall, "lab-2": wall}


def test_lines_are_tried_before_a_gang_starts_and_not_while_it_runs() -> None:
    facts = hosts(2)
    done = planned(facts, gang())
    orders = next(step for step in done.steps if step.title == "Start wide").orders
    assert {host: order["gang_lines"] for host, order in orders.items()} == {
        "lab-1": [{"address": "10.0.0.2", "ports": [7600, 7601], "peers": [{"host": "lab-2", "address": "10.0.0.3"}]}],
        "lab-2": [{"address": "10.0.0.3", "ports": [7600, 7601], "peers": [{"host": "lab-1", "address": "10.0.0.2"}]}],
    }
    again = planned(made.applied(done, facts), gang().replace("8192", "1024"))
    assert not any("gang_lines" in order for step in again.steps for order in step.orders.values())


def test_a_gateway_on_another_host_tries_where_requests_come_in_before_a_gang_starts() -> None:
    """Nothing passes the host's own firewall by: the port is on the host's own network."""
    facts = hosts(3, 0)
    done = planned(facts, on_cpus().replace("nodes: 2", "nodes: 2, hosts: [lab-2, lab-3]"))
    assert placed(done) == {"wide-0": "lab-2", "wide-0-rank1": "lab-3"}
    orders = next(step for step in done.steps if step.title == "Start wide").orders
    peer = {"host": "lab-2", "address": "10.0.0.3", "ports": [8000]}
    assert orders["lab-1"]["gang_lines"] == [{"address": "10.0.0.2", "ports": [], "peers": [peer]}]
    assert orders["lab-2"]["gang_lines"][1:] == [{"address": "10.0.0.3", "ports": [8000], "peers": []}]
    assert len(orders["lab-3"]["gang_lines"]) == 1
    then = made.applied(done, facts)
    extra = "port: 8100\nupdate: {max_surge: 0, max_unavailable: 1}\n"
    moved = planned(then, on_cpus(extra).replace("nodes: 2", "nodes: 2, hosts: [lab-2, lab-3]"))
    tried = [line for step in moved.steps for order in step.orders.values() for line in order.get("gang_lines", [])]
    assert [(line["ports"], [one["ports"] for one in line["peers"]]) for line in tried] == [
        ([8100], []),
        ([], [[8100]]),
    ]


def test_the_interface_of_the_inventory_counts() -> None:
    facts = hosts(2)
    for number, state in enumerate(facts.values(), 1):
        state["interfaces"] |= {f"192.168.7.{number}": "ib0"}
        state["addresses"].append(f"192.168.7.{number}")
        state["gang_interface"] = "ib0"
    done = planned(facts, gang())
    second = service(done, "wide-0-rank1")["environment"]
    assert (second["VLLM_HOST_IP"], second["NCCL_SOCKET_IFNAME"]) == ("192.168.7.2", "=ib0")
    facts["lab-2"]["gang_interface"] = "ib7"
    assert "lab-2: onprem_llm_gang_interface is ib7, which has no address there" in refused(facts, gang()).message


def test_rdma_devices_are_passed_on_where_all_hosts_have_them() -> None:
    facts = hosts(2)
    facts["lab-1"]["rdma"] = {"mlx5_0:1": True, "mlx5_1:1": True, "mlx5_2:1": False}
    assert "devices" not in service(planned(facts, gang()), "wide-0")
    facts["lab-2"]["rdma"] = {"mlx5_0:1": True}
    part = service(planned(facts, gang()), "wide-0")
    assert part["devices"] == ["/dev/infiniband:/dev/infiniband"]
    assert (part["cap_add"], part["ulimits"]) == (["IPC_LOCK"], {"memlock": -1})
    assert part["environment"]["NCCL_IB_HCA"] == "=mlx5_0:1,mlx5_1:1"


def test_on_cpus_a_gang_is_asked_for() -> None:
    done = planned(hosts(2, 0), on_cpus())
    assert placed(done) == {"wide-0": "lab-1", "wide-0-rank1": "lab-2"}
    assert set(placed(planned(hosts(2, 0), on_cpus(nodes="auto")))) == {"wide-0"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (gang(nodes=3), "resources.nodes is 3, and tensor_parallel_size 2 times pipeline_parallel_size 2 is 4"),
        (gang(gpus=8), "resources.gpus is 8: set resources.gpus to 4"),
        (on_cpus().replace("pipeline_parallel_size: 1", "pipeline_parallel_size: 2"), "fails there"),
        (gang().replace("gpus: 4", "gpus: all"), "resources.gpus is all"),
        (gang().replace("max_model_len: 8192", "nnodes: 2"), "use `resources.nodes`"),
        (gang().replace("max_model_len: 8192", "distributed_executor_backend: ray"), "no Ray is involved"),
        (gang(nodes=0), "expected auto or a number of hosts"),
    ],
)
def test_what_cannot_be_cut_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidError) as raised:
        made.deployment(text)
    assert said in (raised.value.details or "")


def test_status_has_one_line_for_it_with_its_hosts_and_says_which_part_does_not_run() -> None:
    facts = deploy(hosts(2), gang())
    rows = {row.project: row for row in running(parse_current(facts), datetime.now(UTC))}
    row = rows["wide-0"]
    assert "wide-0-rank1" not in rows
    assert (row.hosts, row.ready) == ("lab-1, lab-2", True)
    assert [member["project"] for member in json.loads(json.dumps(row.as_json()))["members"]] == ["wide-0-rank1"]
    facts["lab-2"]["projects"]["wide-0-rank1"]["containers"][0]["state"] = "exited"
    row = next(row for row in running(parse_current(facts), datetime.now(UTC)) if row.project == "wide-0")
    assert (row.state, row.ready) == ("wide-0-rank1 is exited", False)
