"""What `bootstrap --upgrade-driver` shows of a plan, whole. After a wanted change: UPDATE_GOLDEN=1, read the diff."""

import json
import os
from pathlib import Path

import pytest
import recorded_facts as made

from onprem_llm.planning.driver_upgrade import Seen, UpgradePlan, plan_upgrade
from onprem_llm.upgrade_view import upgrade_json, upgrade_text

FILES = Path(__file__).parent / "upgrade"
NEW = "580.95.05"


def plan() -> UpgradePlan:
    """Six hosts: one that an earlier run left, one with nothing on it, two that carry each other, one that is alone."""
    facts = {f"gpu-{n}": made.host(f"gpu-{n}", n, gpus=1, gateway=n == 1) for n in range(1, 7)}
    facts["cpu-1"] = made.host("cpu-1", 7)
    for name, hosts, port in (("tiny", "gpu-1, gpu-2", 8000), ("solo", "gpu-3", 8001)):
        text = made.MODEL.format(name=name, image=made.VLLM_IMAGE, gpus=1, model="H100", port=port)
        text = text.replace("gpu_models: [H100]", f"gpu_models: [H100], hosts: [{hosts}]")
        text += f"replicas: {hosts.count(',') + 1}\n"
        facts = made.applied(made.planned(facts, made.deployment(text)), facts)
    used = ("the GPUs are in use by VLLM::Worker",)
    old = {"gpus": 1, "loaded": "550.163.01", "installed": "550.163.01", "then": NEW, "kind": "open"}
    seen = [Seen(f"gpu-{n}", **old, reboot=used if n < 4 else ()) for n in range(1, 5)]  # type: ignore[arg-type]
    seen.append(Seen("gpu-5", 1, "590.44.01", "590.44.01", NEW, "open"))
    seen.append(Seen("gpu-6", 1, NEW, NEW, NEW, done=True))
    return plan_upgrade("580", [*seen, Seen("cpu-1")], made.current(facts))


@pytest.mark.parametrize("name", ["plan.txt", "plan.json"])
def test_the_plan_is_as_kept(name: str) -> None:
    made_plan = plan()
    states = {"gpu-4": "upgraded", "gpu-5": "failed"}
    shown = (
        upgrade_text(made_plan)
        if name == "plan.txt"
        else json.dumps(upgrade_json(made_plan, states, ["gpu-5"]), indent=2)
    )
    path = FILES / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(f"{shown}\n", encoding="utf-8")
    assert f"{shown}\n" == path.read_text(encoding="utf-8")
