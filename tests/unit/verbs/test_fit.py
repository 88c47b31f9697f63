"""`onprem-llm fit`: from a model's files and what is known of hosts to a verdict and an exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
import recorded_facts as made
from click.testing import CliRunner, Result
from tests.made_facts import facts_of, host_facts
from tests.made_models import write_model
from tests.published_models import LLAMA_3_8B

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.look import View
from onprem_llm.main import cli
from onprem_llm.run_events import HostFailure
from onprem_llm.spec.network_facts import LineFacts, NetworkFacts

H100, L4, T4 = ("NVIDIA H100 80GB HBM3", 85_520_809_984), ("NVIDIA L4", 24_152_899_584), ("Tesla T4", 16_106_127_360)
MODEL = """api_version: 1
name: llama
model: ./Llama
engine: {image: "vllm/vllm-openai:v0.32.0", engine_args: {ARGS}}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONPREM_LLM_INVENTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "Llama", {**LLAMA_3_8B, "max_position_embeddings": 131072}, shards=4)
    return tmp_path


def fit(
    site: Path, *words: str, args: str = "", more: str = "", bad: tuple[str, str] | None = None, **hosts: dict[str, Any]
) -> Result:
    """Judge made hosts; `bad`: a line between two of them that was measured, and found slow."""
    (site / "model.yaml").write_text(MODEL.replace("ARGS", args) + more)
    given = [] if not hosts else ["--facts", "facts.json"]
    facts = facts_of(**hosts)
    if bad is not None:
        line = LineFacts(source=bad[0], target=bad[1], bits_per_second=10**6, mtu=1500, problems=("slow",))
        facts = facts.model_copy(update={"network": NetworkFacts(measured_at="2026-11-21T00:00:00Z", lines=(line,))})
    (site / "facts.json").write_bytes(facts.data)
    return CliRunner().invoke(cli, ["fit", "model.yaml", *given, *words])


def gpus(count: int, kind: tuple[str, int]) -> dict[str, Any]:
    return host_facts(gpus=[{"name": kind[0], "memory_bytes": kind[1], "pci_id": None}] * count)


def test_it_fits_and_the_sum_is_shown(site: Path) -> None:
    done = fit(site, big=gpus(8, H100))
    assert done.exit_code == 0, done.output
    assert "big   8 x NVIDIA H100 80GB HBM3  fits" in done.stdout
    assert "-16 060 522 496" in done.stdout
    assert "131072 tokens, 131072 bytes each, bfloat16" in done.stdout


def test_json_has_every_term(site: Path) -> None:
    done = fit(site, "--json", big=gpus(8, H100))
    value = json.loads(done.stdout)
    (host,) = value["hosts"]
    assert (value["fits"], host["verdict"], value["model"]["loaded_bytes"]) == (True, "fits", 16_060_522_496)
    terms = host["sum"]
    estimated = terms["estimated"]
    assert terms["needed_bytes"] == terms["weights_bytes"] + terms["kv_cache_bytes"] + sum(
        estimated[name] for name in ("activations_bytes", "libraries_bytes", "cuda_graphs_bytes")
    )
    assert terms["left_bytes"] == terms["budget_bytes"] - terms["needed_bytes"]
    assert terms["kv_blocks"] * 16 == pytest.approx(terms["kv_tokens"], abs=131072)


def test_where_it_fits_nowhere_the_smallest_change_is_said(site: Path) -> None:
    done = fit(site, a=gpus(2, L4), b=host_facts())
    assert isinstance(done.exception, InvalidError)
    assert done.exception.message == "llama fits on no host"
    assert "engine_args.max_model_len: " in str(done.exception.hint)
    assert "what makes it fit, the smallest change first:" in done.stdout
    assert "- tensor parallel over 2 GPUs (engine_args.tensor_parallel_size: 2, resources.gpus: 2)" in done.stdout
    assert "b     -              no" in done.stdout
    changes = json.loads(fit(site, "--json", a=gpus(2, L4)).stdout)["hosts"][0]["changes"]
    for change in changes:
        args = ", ".join(f"{name}: {value}" for name, value in change["engine_args"].items())
        more = f"resources: {{gpus: {change['gpus']}}}\n" if change["gpus"] else ""
        assert not args or fit(site, args=args, more=more, a=gpus(2, L4)).exit_code == 0


def test_one_host_that_carries_it_is_enough(site: Path) -> None:
    assert fit(site, a=gpus(2, T4), b=gpus(1, H100)).exit_code == 0


def test_hosts_and_models_that_the_file_asks_for(site: Path) -> None:
    done = fit(site, more="resources: {hosts: [a]}\n", a=gpus(2, T4), b=gpus(1, H100))
    assert isinstance(done.exception, InvalidError)
    assert "not in resources.hosts" in done.stdout
    done = fit(site, more="resources: {gpu_models: [A100]}\n", b=gpus(1, H100))
    assert "no A100" in done.stdout


def test_more_requests_at_once(site: Path) -> None:
    assert fit(site, args="max_model_len: 8192", a=gpus(1, L4)).exit_code == 0
    assert isinstance(fit(site, "--requests", "8", args="max_model_len: 8192", a=gpus(1, L4)).exception, InvalidError)


def test_facts_from_before_there_was_a_driver(site: Path) -> None:
    done = fit(site, a=host_facts(gpus=[{"name": "H100", "memory_bytes": None, "pci_id": "10de:2330"}]))
    assert done.exit_code == 0
    assert "H100 does not say how much memory it has" in done.stdout


def test_without_hosts_it_says_what_gpus_it_would_need(site: Path) -> None:
    done = fit(site)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1].split() == ["1", "16.1", "GB", "17.2", "GB", "34.5", "GB", "40", "GB"]
    value = json.loads(fit(site, "--json").stdout)
    assert [need["gpus"] for need in value["needs"]] == [1, 2, 4, 8]


def test_auto_shows_what_it_takes(site: Path) -> None:
    value = json.loads(fit(site, "--json", args="tensor_parallel_size: auto", a=gpus(4, L4)).stdout)
    assert value["gpus_of_a_replica"] == 2
    done = fit(site, args="tensor_parallel_size: auto, max_num_seqs: 100000", a=gpus(1, T4))
    assert isinstance(done.exception, InvalidError)


def test_hosts_of_an_inventory(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other deployments hold is taken, what this one holds is its own."""
    facts = made.lab()
    view = View(
        made.current(facts, ("gone",)), (HostFailure("gone", "look", "no route\nat all", unreachable=True),), "salt"
    )
    monkeypatch.setattr("onprem_llm.look.look", lambda connection, progress: view)
    (site / "inventory.ini").write_text("lab-1\n")
    done = fit(site)
    assert done.exit_code == 0, done.output
    assert "it did not answer: no route" in done.stdout
    small = {name: {**state} for name, state in facts.items()}
    for state in small.values():
        state["gpus"] = {**state["gpus"], "devices": [{**d, "memory_total": 8000} for d in state["gpus"]["devices"]]}
    view = View(made.current(small, ("gone",)), view.failures, "salt")
    monkeypatch.setattr("onprem_llm.look.look", lambda connection, progress: view)
    assert isinstance(fit(site).exception, UnreachableError)
    assert isinstance(fit(site, "--skip-unreachable").exception, InvalidError)


def seen(monkeypatch: pytest.MonkeyPatch, site: Path, facts: dict[str, Any]) -> None:
    monkeypatch.setattr("onprem_llm.look.look", lambda connection, progress: View(made.current(facts), (), "salt"))
    (site / "inventory.ini").write_text("lab-1\n")


def test_gpus_that_others_use_are_not_counted(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"lab-1": made.host("lab-1", 1, gpus=4, gateway=True)}
    first, second, third, fourth = facts["lab-1"]["gpus"]["devices"]
    first["processes"] = [{"pid": 42, "name": "python", "memory": 100}]
    second["memory_used"] = 20_000
    seen(monkeypatch, site, facts)
    third["memory_used"], fourth["memory_used"] = 3, 700  # a driver's own
    (host,) = json.loads(fit(site, "--json").stdout)["hosts"]
    assert (host["gpus"], host["verdict"]) == (2, "fits")
    third["processes"] = fourth["processes"] = first["processes"]
    done = fit(site)
    assert isinstance(done.exception, InvalidError)
    assert "GPU 0 is used by python (pid 42); GPU 1 has 20000 of 81559 MiB in use" in done.stdout


def marked(facts: dict[str, Any], host: str, state: str = "drained") -> None:
    mark = {"state": state, "by": "me@here", "at": "2026-11-21T00:00:00Z"}
    facts["lab-1"]["book"]["hosts"] = {host: mark}


@pytest.mark.parametrize("state", ["drained", "lost", "removed"])
def test_a_host_that_takes_nothing_new_is_no_room(site: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """The gateway's GPU is too small; the other host would do, and a deploy passes it over."""
    facts = {"lab-1": made.host("lab-1", 1, gpus=1, gateway=True), "lab-2": made.host("lab-2", 2, gpus=4)}
    facts["lab-1"]["gpus"]["devices"][0].update(name="Tesla T4", memory_total=15360)
    seen(monkeypatch, site, facts)
    assert fit(site).exit_code == 0
    marked(facts, "lab-2", state)
    done = fit(site, "--json")
    assert isinstance(done.exception, InvalidError)
    assert "onprem-llm host undrain lab-2" in str(done.exception.hint)
    far = json.loads(done.stdout)["hosts"][1]
    assert (far["host"], far["verdict"], far["why"]) == ("lab-2", "no", f"it is {state} by me@here")
    done = fit(site, args="tensor_parallel_size: auto")
    assert isinstance(done.exception, InvalidError)


def test_auto_takes_no_size_for_a_host_that_takes_nothing_new(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"lab-1": made.host("lab-1", 1, gpus=4, gateway=True), "lab-2": made.host("lab-2", 2, gpus=4)}
    for device in facts["lab-1"]["gpus"]["devices"]:
        device.update(name="NVIDIA L4", memory_total=23034)
    seen(monkeypatch, site, facts)
    args = "tensor_parallel_size: auto"
    assert json.loads(fit(site, "--json", args=args).stdout)["gpus_of_a_replica"] == 1
    marked(facts, "lab-2")
    assert json.loads(fit(site, "--json", args=args).stdout)["gpus_of_a_replica"] == 2


def test_a_host_that_is_gone_is_not_waited_for(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"lab-1": made.host("lab-1", 1, gpus=1, gateway=True)}
    facts["lab-1"]["gpus"]["devices"][0].update(name="Tesla T4", memory_total=15360)
    marked(facts, "gone", "lost")
    view = View(made.current(facts, ("gone",)), (HostFailure("gone", "look", "no route", unreachable=True),), "salt")
    monkeypatch.setattr("onprem_llm.look.look", lambda connection, progress: view)
    (site / "inventory.ini").write_text("lab-1\ngone\n")
    done = fit(site)
    assert isinstance(done.exception, InvalidError)
    assert "did not answer" not in done.stdout


def test_what_runs_on_a_drained_host_may_stay_there(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a deploy has it: a replica that is there is replaced there, a new one goes elsewhere."""
    facts = made.lab()
    deployed = made.applied(made.planned(facts, made.deployment(made.MODEL.format(
        name="llama", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000))), facts)  # fmt: skip
    (home,) = (name for name, state in deployed.items() if "llama-0" in state["projects"])
    marked(deployed, home)
    seen(monkeypatch, site, deployed)
    verdicts = {one["host"]: one["verdict"] for one in json.loads(fit(site, "--json").stdout)["hosts"]}
    assert verdicts[home] == "fits"


def test_what_a_driver_keeps_and_more_is_not_free(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 % are in use, which a deploy takes for idle; an engine that wants 97 % refuses to start there."""
    facts = {"lab-1": made.host("lab-1", 1, gpus=1, gateway=True)}
    facts["lab-1"]["gpus"]["devices"][0]["memory_used"] = 4000
    seen(monkeypatch, site, facts)
    assert fit(site).exit_code == 0
    done = fit(site, args="gpu_memory_utilization: 0.98")
    assert isinstance(done.exception, InvalidError)
    assert "others hold 4.2 GB" in done.stdout
    share = str(done.exception.hint).rpartition("gpu_memory_utilization: ")[2]
    assert fit(site, args=f"gpu_memory_utilization: {share}").exit_code == 0


def test_heads_that_are_not_divided(site: Path) -> None:
    done = fit(site, args="tensor_parallel_size: 3", more="resources: {gpus: 3}\n", a=gpus(3, H100))
    assert isinstance(done.exception, InvalidError)
    assert "tensor_parallel_size 3 does not divide the model's 32 attention heads" in done.stdout
    done = fit(site, args="tensor_parallel_size: 4", more="resources: {gpus: 4}\n", a=gpus(3, H100))
    assert "3 of NVIDIA H100 80GB HBM3 free, and a replica takes 4" in done.stdout
    assert "what makes it fit" not in done.stdout


def test_an_inventory_that_was_named_must_be_there(site: Path) -> None:
    assert isinstance(fit(site, "-i", "absent.ini").exception, InvalidError)


def test_weights_that_were_not_pulled(site: Path) -> None:
    (site / "model.yaml").write_text(MODEL.replace("./Llama", "{source: huggingface, id: a/b}").replace("ARGS", ""))
    done = CliRunner().invoke(cli, ["fit", "model.yaml"])
    assert isinstance(done.exception, InvalidError)
    assert done.exception.hint == "onprem-llm weights pull model.yaml"


@pytest.mark.usefixtures("site_of_defaults")
def test_a_plan_from_facts_is_refused_with_the_sum(site: Path) -> None:
    """Of a model that is small on the disk, since a plan hashes the weights, and has a cache of 131 GB."""
    config = {**LLAMA_3_8B, "hidden_size": 8, "intermediate_size": 8, "head_dim": 128, "vocab_size": 64}
    write_model(site / "Wide", {**config, "max_position_embeddings": 1_000_000})
    assert fit(site, a=gpus(1, H100)).exit_code == 0
    text = MODEL.replace("./Llama", "./Wide").replace("ARGS", "")
    (site / "model.yaml").write_text(text)
    (site / "inventory.ini").write_text("a\n")
    done = CliRunner().invoke(cli, ["plan", "model.yaml", "--facts", "facts.json"])
    assert isinstance(done.exception, InvalidError)
    assert "the model does not fit into the memory of its GPUs" in done.exception.message
    assert "-131 072 000 000" in str(done.exception.details)
    length = str(done.exception.hint).partition("engine_args.max_model_len: ")[2].partition(")")[0]
    (site / "model.yaml").write_text(MODEL.replace("./Llama", "./Wide").replace("ARGS", f"max_model_len: {length}"))
    assert CliRunner().invoke(cli, ["plan", "model.yaml", "--facts", "facts.json"]).exit_code == 0


SHORT = "max_model_len: 8192"


def test_hosts_that_are_too_small_alone_are_proposed_together(site: Path) -> None:
    done = fit(site, args=SHORT, one=gpus(1, T4), two=gpus(1, T4), other=gpus(1, L4))
    assert done.exit_code == 0, done.output  # the L4 carries it
    assert "together" not in done.stdout
    done = fit(site, args=SHORT, one=gpus(1, T4), two=gpus(1, T4))
    edit = "engine_args.tensor_parallel_size: 1, engine_args.pipeline_parallel_size: 2, resources.gpus: 2"
    assert f"one, two together (docs/multi-node.md): over 2 hosts ({edit}):" in done.stdout
    assert isinstance(done.exception, InvalidError)
    value = json.loads(fit(site, "--json", args=SHORT, one=gpus(1, T4), two=gpus(1, T4)).stdout)
    assert (value["nodes"], value["fits"], value["over_hosts"]["hosts"]) == (1, False, ["one", "two"])
    # What is proposed is what fits.
    sizes = f"{SHORT}, tensor_parallel_size: 1, pipeline_parallel_size: 2"
    done = fit(site, args=sizes, more="resources: {gpus: 2}\n", one=gpus(1, T4), two=gpus(1, T4))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("A replica goes over 2 hosts: a verdict is of a host's share.")


def test_unlike_gpus_are_not_put_together_and_none_where_one_host_is_asked_for(site: Path) -> None:
    assert "together" not in fit(site, args=SHORT, one=gpus(1, T4), two=gpus(1, ("Tesla P4", T4[1]))).stdout
    pinned = "resources: {gpus: 1, nodes: 1}\n"
    assert "together" not in fit(site, args=SHORT, more=pinned, one=gpus(1, T4), two=gpus(1, T4)).stdout


def test_as_many_hosts_must_carry_their_share_as_a_replica_goes_over(site: Path) -> None:
    sizes = f"{SHORT}, tensor_parallel_size: 1, pipeline_parallel_size: 2"
    done = fit(site, args=sizes, more="resources: {gpus: 2, nodes: 2}\n", one=gpus(1, T4), two=gpus(1, L4))
    assert "llama fits on no 2 hosts" in str(done.exception)
    assert fit(site, args=sizes, more="resources: {gpus: 2, nodes: 2}\n", a=gpus(1, T4), b=gpus(1, T4)).exit_code == 0


def test_hosts_with_a_bad_line_between_them_are_not_put_together_and_it_is_said_of_those_that_are(site: Path) -> None:
    two = {"one": gpus(1, T4), "two": gpus(1, T4)}
    assert "together" not in fit(site, args=SHORT, bad=("one", "two"), **two).stdout
    done = fit(site, args=SHORT, bad=("one", "two"), **two, three=gpus(1, T4))
    assert "one, three together" in done.stdout
    sizes = f"{SHORT}, tensor_parallel_size: 1, pipeline_parallel_size: 2"
    done = fit(site, args=sizes, more="resources: {gpus: 2}\n", bad=("two", "one"), **two)
    assert "No replica over several hosts belongs on these lines:\ntwo to one: slow" in done.stdout


def test_all_lines_are_not_looked_through_for_each_two_of_many_hosts(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 40,000 lines between 200 hosts."""
    looks: list[object] = []
    of = NetworkFacts.of
    monkeypatch.setattr(NetworkFacts, "of", lambda self, hosts: looks.append(hosts) or of(self, hosts))
    done = fit(site, args=SHORT, bad=("h00", "h01"), **{f"h{number:02}": gpus(1, T4) for number in range(50)})
    assert "h00, h02 together" in done.stdout
    assert len(looks) < 10
