"""What hosts cannot carry: ports, disks, images."""

import pytest
import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.errors import InvalidError
from onprem_llm.planning.types import ImageSource

TINY = made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000)
ONE_HOST = TINY.replace("gpus: 1,", "gpus: 1, hosts: [lab-1],")


def refused(facts: dict[str, Facts], text: str = TINY, image: ImageSource | None = None) -> InvalidError:
    with pytest.raises(InvalidError) as raised:
        made.planned(facts, made.deployment(text, image=image))
    assert raised.value.hint
    return raised.value


def listening(
    port: int, process: str | None = "nginx", address: str = made.EVERYWHERE, container: str | None = None
) -> Facts:
    return {"address": address, "port": port, "pid": 42, "process": process, "container": container}


def test_a_port_in_use_names_the_process() -> None:
    facts = made.lab()
    facts["lab-1"]["listeners"].append(listening(8000))
    assert refused(facts).message == "port 8000 is in use on lab-1: nginx (pid 42) listens on 0.0.0.0:8000"


def test_a_port_in_use_names_the_container() -> None:
    facts = made.lab()
    facts["lab-1"]["listeners"].append(listening(8000, "docker-proxy", container="ollama"))
    assert "the container ollama, which is not onprem-llm's, publishes it" in refused(facts).message


def test_a_port_of_another_address_is_free() -> None:
    facts = made.lab()
    facts["lab-1"]["listeners"].append(listening(8000, address="127.0.0.1"))
    assert made.planned(facts, made.deployment(TINY)).steps
    refused(facts, TINY + "listen: local\n")
    refused(facts, TINY + "listen: all\n")


def test_the_port_of_the_replica_itself_is_not_in_use() -> None:
    facts = made.lab()
    facts = made.applied(made.planned(facts, made.deployment(TINY)), facts)
    facts["lab-1"]["listeners"].append(listening(8000, "docker-proxy", "10.0.0.2", "tiny-0-vllm-1"))
    assert made.planned(facts, made.deployment(TINY)).is_noop
    assert made.planned(facts, made.deployment(TINY.replace("8192", "4096"))).steps


def test_two_projects_of_ours_on_one_port() -> None:
    facts = made.lab()
    facts = made.applied(made.planned(facts, made.deployment(TINY)), facts)
    second = ONE_HOST.replace("name: tiny", "name: second")
    assert "port 8000 is in use on lab-1: the project tiny-0 of onprem-llm has it" in refused(facts, second).message
    on_the_page = second.replace("port: 8000", "port: 3000")
    assert "the project open-webui of onprem-llm has it" in refused(facts, on_the_page).message


def test_the_page_and_the_replica_on_one_port() -> None:
    error = refused(made.lab(), ONE_HOST.replace("port: 8000", "port: 3000"))
    assert "port 3000 is in use on lab-1: the project tiny-0" in error.message
    assert "onprem_llm_site.open_webui.port" in str(error.hint)


def test_the_gateway_and_a_replica_on_one_port() -> None:
    error = refused(made.lab(), ONE_HOST.replace("port: 8000", "port: 8080"))
    assert "port 8080 is in use on lab-1: the project tiny-0" in error.message
    assert "onprem_llm_site.public_port" in str(error.hint)


def test_an_address_that_the_host_does_not_have() -> None:
    error = refused(made.lab(), TINY + "listen: 192.0.2.1\n")
    assert "192.0.2.1, which is no address of lab-1" in error.message
    assert "10.0.0.2" in str(error.hint)


def test_ansible_host_is_the_cluster_address_where_it_is_the_hosts_own() -> None:
    facts = made.lab()
    facts["lab-1"].update(addresses=["10.0.0.2", "192.168.7.7"], ansible_host="192.168.7.7")
    assert made.planned(facts, made.deployment(TINY)).endpoints[0].url == "https://192.168.7.7:8080/v1"
    facts["lab-1"]["ansible_host"] = "bastion.example.com"
    assert made.planned(facts, made.deployment(TINY)).endpoints[0].url == "https://10.0.0.2:8080/v1"


def test_not_enough_disk_counts_what_shares_a_file_system() -> None:
    facts = made.lab()
    disk = {"path": "/srv", "free": 6 * made.GIB, "total": 100 * made.GIB, "device": 1}
    facts["lab-1"]["disks"] = {"data_root": disk, "weights": disk, "docker": disk}
    error = refused(facts)
    assert error.message.startswith("not enough disk on lab-1: 12.9 GB needed (")
    assert "6.4 GB of images in /srv" in error.message
    assert error.message.endswith("6.4 GB free")
    disk["free"] = 7 * made.GIB
    facts["lab-1"]["disks"] = {key: {**disk, "device": n} for n, key in enumerate(("data_root", "weights", "docker"))}
    assert made.planned(facts, made.deployment(TINY)).steps


def test_an_image_that_nothing_can_bring() -> None:
    error = refused(made.lab(), image=ImageSource(made.VLLM_IMAGE))
    assert f"image {made.VLLM_IMAGE} is not on lab-1" in error.message
    assert "docker save" in str(error.hint)


def test_an_image_that_the_host_has_needs_nothing_else() -> None:
    facts = made.lab()
    known = made.image_id("another build")
    facts["lab-1"]["images"] = [{"id": known, "tags": [made.VLLM_IMAGE], "digests": []}]
    plan = made.planned(facts, made.deployment(TINY, image=ImageSource(made.VLLM_IMAGE)))
    assert f"image: {known}" in plan.files["lab-1"]["tiny-0"]["compose.yaml"]
    gone = ImageSource(made.VLLM_IMAGE, id=made.image_id("the recorded build, gone"))
    assert (
        f"image: {known}"
        in made.planned(facts, made.deployment(TINY, image=gone)).files["lab-1"]["tiny-0"]["compose.yaml"]
    )


def test_two_deployments_with_one_served_name() -> None:
    facts = made.lab()
    facts = made.applied(made.planned(facts, made.deployment(TINY)), facts)
    text = TINY.replace("name: tiny", "name: second").replace("port: 8000", "port: 8001") + "served_name: tiny\n"
    assert "served_name: found tiny, which both tiny and second have" in refused(facts, text).message


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ({"gateway_image": ImageSource(made.GATEWAY_IMAGE)}, "sh images/build.sh gateway in a checkout of onprem-llm"),
        ({"ui_image": ImageSource(made.UI_IMAGE)}, f"where you have it: docker save {made.UI_IMAGE} -o FILE.tar"),
    ],
)
def test_an_image_that_nothing_brings(missing: dict[str, ImageSource], said: str) -> None:
    with pytest.raises(InvalidError, match="is not on lab-1, and nothing can bring it there") as raised:
        made.planned(made.lab(), made.deployment(TINY), **missing)
    assert said in (raised.value.hint or "")
