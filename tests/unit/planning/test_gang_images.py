"""One image for all parts of a replica: found apart before anything starts, whatever the tag says."""

from dataclasses import replace

import pytest
import recorded_facts as made
from gang_lab import hosts, on_cpus, service
from planning_lab import Hosts

from onprem_llm.errors import InvalidError
from onprem_llm.planning.types import ImageSource, Plan

REF = "onprem-llm/vllm-cpu:0.32.0"
ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def loaded(**ids: str) -> Hosts:
    """Return two hosts on which somebody has loaded an image by hand."""
    facts = hosts(2, 0)
    for name, image in ids.items():
        facts[name.replace("_", "-")]["images"].append({"id": image, "tags": [REF], "digests": []})
    return facts


def planned(facts: Hosts, image: ImageSource) -> Plan:
    return made.planned(facts, made.deployment(on_cpus(), image=image))


def test_a_tag_that_is_two_images_is_refused_with_the_hosts_and_what_to_do() -> None:
    with pytest.raises(InvalidError) as raised:
        planned(loaded(lab_1=ONE, lab_2=OTHER), ImageSource(REF))
    assert raised.value.message == (
        f"wide-0 would run two images as one: {REF} is sha256:111111111111 on lab-1, sha256:222222222222 on lab-2"
    )
    assert f"docker save {REF} | ssh lab-2 sudo docker load" in (raised.value.hint or "")


def test_the_same_one_on_all_hosts_is_taken() -> None:
    done = planned(loaded(lab_1=ONE, lab_2=ONE), ImageSource(REF))
    assert {service(done, project)["image"] for project in ("wide-0", "wide-0-rank1")} == {ONE}


def test_what_the_book_has_and_only_one_host_still_has_is_no_gang() -> None:
    """The second host lost it, and has another one under the tag by now."""
    facts = loaded(lab_1=ONE, lab_2=ONE)
    facts = made.applied(planned(facts, ImageSource(REF)), facts)
    facts["lab-2"]["images"] = [{"id": OTHER, "tags": [REF], "digests": []}]
    with pytest.raises(InvalidError, match="would run two images as one"):
        planned(facts, ImageSource(REF))


def test_an_archive_brings_one_image_to_all_hosts_whatever_their_tags_say() -> None:
    done = planned(loaded(lab_1=ONE, lab_2=OTHER), made.archive(REF))
    assert {service(done, project)["image"] for project in ("wide-0", "wide-0-rank1")} == {made.image_id(REF)}


def test_one_digest_is_one_image_by_whatever_registry_a_host_has_it() -> None:
    facts = loaded(lab_1=ONE)
    digest = "sha256:" + "d" * 64
    facts["lab-1"]["images"][0]["digests"] = [f"127.0.0.1:5443/vllm-cpu@{digest}"]
    source = replace(ImageSource(REF), pull=f"registry.local:5000/vllm-cpu@{digest}")
    done = planned(facts, source)
    assert service(done, "wide-0")["image"] == f"127.0.0.1:5443/vllm-cpu@{digest}"
    assert service(done, "wide-0-rank1")["image"] == f"registry.local:5000/vllm-cpu@{digest}"
