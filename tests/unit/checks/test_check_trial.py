"""Which image tries a host's GPUs, how they are given to it, and when nothing is tried and why."""

from typing import Any

from onprem_llm.checks.trial import trials

CDI = ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=GPU-a", "nvidia.com/gpu=all"]


def gpu(index: int, uuid: str, free: int | None = 80000, **changes: Any) -> dict[str, Any]:
    return {"index": index, "uuid": uuid, "memory_free": free, "mig_devices": [], **changes}


def container(image: str, access: str, gpus: str) -> dict[str, Any]:
    return {"image": image, "name": "x", "labels": {"project": "x-0", "gpu_access": access, "gpus": gpus}}


def facts(*gpus: dict[str, Any], containers: tuple[dict[str, Any], ...] = (), **access: Any) -> dict[str, Any]:
    known = {"engine": True, "cdi_on": True, "cdi": CDI, "runtimes": ["runc"], "containers": list(containers), **access}
    return {"gpus": list(gpus), "access": known}


TWO = (gpu(0, "GPU-a"), gpu(1, "GPU-b"))


def why(made: dict[str, Any], image: str | None = None) -> str:
    wanted, [note] = trials("h", made, image)
    assert wanted == []
    assert (note.level, note.check) == ("ok", "engine_image")
    return note.found


def test_without_gpus_there_is_nothing_to_say() -> None:
    assert trials("h", facts(), "vllm:1") == ([], [])


def test_why_nothing_is_tried() -> None:
    assert why(facts(*TWO)) == "not tried: no deployment has GPUs on this host, and no --image is given"
    assert why(facts(*TWO, engine=False), "vllm:1") == "not tried: no container engine answers on this host"
    assert why(facts(gpu(0, "GPU-a", 900), gpu(1, "GPU-b", 12)), "i") == "not tried: GPU 0, 1: less than 1 GiB is free"
    on_a_processor = container("vllm-cpu:1", "none", "")
    assert "no deployment has GPUs" in why(facts(*TWO, containers=(on_a_processor,)))


def test_the_image_and_the_way_of_the_deployment() -> None:
    one = {**container("sha256:1", "gpus", "GPU-a,GPU-b"), "image_name": "vllm:1"}
    assert trials("h", facts(*TWO, containers=(one, one)), "other:1") == (
        [
            {
                "image": "sha256:1",
                "name": "vllm:1",
                "access": "gpus",
                "devices": ["GPU-a", "GPU-b"],
                "gpus": 2,
                "others": [{"access": "cdi", "devices": ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"]}],
            }
        ],
        [],
    )


def test_cards_of_no_deployment_are_tried_with_the_first_image() -> None:
    made = facts(
        *TWO, gpu(2, "GPU-c"), containers=(container("a", "gpus", "GPU-b"), container("b", "runtime", "GPU-a"))
    )
    wanted, _ = trials("h", made, None)
    assert [(one["image"], one["access"], one["devices"]) for one in wanted] == [
        ("a", "gpus", ["GPU-b", "GPU-c"]),
        ("b", "runtime", ["GPU-a"]),
    ]


def test_an_image_that_is_named() -> None:
    [by_cdi], _ = trials("h", facts(*TWO), "vllm:1")
    # By UUID where the specification has it: an index moves when a card drops.
    assert (by_cdi["access"], by_cdi["devices"]) == ("cdi", ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"])
    [by_index], _ = trials("h", facts(*TWO, cdi=["nvidia.com/gpu=0", "nvidia.com/gpu=all"]), "vllm:1")
    assert by_index["devices"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    [stale], _ = trials("h", facts(*TWO, cdi_missing=["/lib/gone"], runtimes=["nvidia", "runc"]), "vllm:1")
    assert (stale["access"], stale["others"][0]["access"]) == ("gpus", "cdi")
    [by_flag], _ = trials("h", facts(*TWO, cdi_on=False), "vllm:1")
    assert (by_flag["access"], by_flag["devices"]) == ("gpus", ["GPU-a", "GPU-b"])


def test_a_full_card_is_left_out_and_said() -> None:
    [one], [note] = trials("h", facts(gpu(0, "GPU-a", 12), gpu(1, "GPU-b", None)), "vllm:1")
    assert (one["devices"], one["gpus"]) == (["nvidia.com/gpu=GPU-b"], 1)
    assert note.found == "not tried: GPU 0: less than 1 GiB is free"


def test_partitions_are_given_as_they_are() -> None:
    parted = gpu(0, "GPU-a", mig_devices=[{"index": 0, "memory": 19968}])
    [one], _ = trials("h", facts(parted, containers=(container("vllm:1", "gpus", "GPU-a"),)), None)
    assert (one["devices"], one["gpus"]) == ([], 0)
