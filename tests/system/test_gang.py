"""One replica over two hosts, with the real vLLM: the same tokens as on one host, and it comes back by itself."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from tests.load.rehearsal import Rehearsal, Replica, until
from tests.load.served import Served, served

ONE = """\
api_version: 1
name: wide
model: model
engine:
  image: onprem-llm/vllm-cpu:0.32.0
  engine_args: {max_model_len: 512, dtype: float32, enforce_eager: true, max_num_seqs: 8}
  shm_size: 1g
resources: {gpus: 0}
env: {VLLM_CPU_KVCACHE_SPACE: "1", TORCH_COMPILE_DISABLE: "1"}
timeouts: {start: 900, readiness: 120}
"""
# The recipe of the image has no C++ compiler, which one function of tensor parallel engines on CPUs is compiled with.
# Without room for a second gang beside the first: all parts are stopped, and all started.
IN_PLACE = "update: {max_unavailable: 1, max_surge: 0}\n"
GANG = (
    ONE.replace("resources: {gpus: 0}", "resources: {gpus: 0, nodes: 2}").replace(
        "max_num_seqs: 8}", "max_num_seqs: 8, tensor_parallel_size: 2}"
    )
    + IN_PLACE
)
PROMPTS = ("Once upon a time", "The capital of France is", "What are you?")
TOKENS = 16
BACK_S = 400  # an engine on a busy machine with 2 cores starts in 60 to 150 s
ANSWER_S = 60  # no request may take longer, whatever happens to the gang


@dataclass
class Asked:
    """What clients got: status and seconds of each request."""

    one: Served
    answers: list[tuple[int, float]] = field(default_factory=list)

    def tokens(self, prompt: str) -> list[int]:
        """Return the tokens that the model makes of a prompt; none where it did not answer.

        A made model may end a text where it begins: it goes on, and a text has not all of its tokens.
        """
        began = time.monotonic()
        body = {"model": "wide", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
        status, value = self.one.rehearsal.ask("/v1/completions", self.one.key, {**body, "return_token_ids": True})
        self.answers.append((status, time.monotonic() - began))
        return value["choices"][0]["token_ids"] if status == 200 else []

    def all_tokens(self) -> list[list[int]]:
        """Return what the model makes of each prompt."""
        return [self.tokens(prompt) for prompt in PROMPTS]


def engine_pid(replica: Replica) -> str:
    """Return the process that computes, or else the engine's first: not the one that watches over it."""
    listed = replica.lab.exec_root(replica.host, "docker", "top", replica.container, "-o", "pid,args").splitlines()
    found = [line.split()[0] for line in listed if "VLLM::Worker" in line or "vllm serve" in line]
    assert found, listed
    return found[-1]


def kill_engine(replica: Replica) -> None:
    """End the engine's own process, as the kernel does when memory is short."""
    replica.lab.exec_root(replica.host, "kill", "-9", engine_pid(replica))


def kill_container(replica: Replica) -> None:
    """End the container's first process: whatever is in it goes with it."""
    replica.lab.exec_root(replica.host, "kill", "-9", replica.inspect(".State.Pid"))


def parts(one: Served) -> dict[str, Replica]:
    """Return the gang's containers by project, its further parts too."""
    row = next(row for row in one.site.json("status")["replicas"] if row["project"] == "wide-0")
    hosts = {"wide-0": row["host"], **{member["project"]: member["host"] for member in row["members"]}}
    return {name: Replica(one.rehearsal.lab, host, f"{name}-vllm-1") for name, host in hosts.items()}


@pytest.fixture(scope="module")
def wide(rehearsal: Rehearsal) -> Iterator[tuple[Served, list[list[int]]]]:
    """The model on one host first, for its answers; then the same over both."""
    with served(rehearsal, "wide", ONE, replicas=1) as one:
        alone = Asked(one).all_tokens()
        one.text = GANG
        one.deploy()
        one.in_rotation(1)
        yield one, alone


def test_two_hosts_say_what_one_said(wide: tuple[Served, list[list[int]]]) -> None:
    one, alone = wide
    there = parts(one)
    assert {name: replica.host for name, replica in there.items()} == dict(
        zip(["wide-0", "wide-0-rank1"], one.rehearsal.hosts, strict=True)
    )
    assert [len(tokens) for tokens in alone] == [TOKENS] * len(PROMPTS)
    assert Asked(one).all_tokens() == alone


def test_a_second_deploy_changes_nothing(wide: tuple[Served, list[list[int]]]) -> None:
    one, _ = wide
    before = {name: replica.born for name, replica in parts(one).items()}
    one.deploy()
    assert one.site.json("plan", one.file)["noop"] is True
    assert {name: replica.born for name, replica in parts(one).items()} == before


@pytest.mark.parametrize("project", ["wide-0", "wide-0-rank1"])
@pytest.mark.parametrize("kill", [kill_engine, kill_container])
def test_a_part_that_is_killed_is_back_by_itself(
    wide: tuple[Served, list[list[int]]], project: str, kill: Callable[[Replica], None]
) -> None:
    """The control host asks through the gateway, and does nothing else."""
    one, alone = wide
    clients = Asked(one)
    kill(parts(one)[project])
    # It is seen that it was gone, so that what answers afterwards is another gang.
    until(lambda: clients.tokens(PROMPTS[0]) != alone[0], 60, f"requests fail once {project} was killed")
    seconds = until(lambda: clients.tokens(PROMPTS[0]) == alone[0], BACK_S, "the gang serves again")
    print(f"{kill.__name__} of {project}: serving again after {seconds:.0f} s")
    # What docs/gateway.md has for a replica that is killed, and the engine's own 500.
    assert {status for status, _ in clients.answers} <= {200, 500, 502, 503, 504}
    assert max(took for _, took in clients.answers) < ANSWER_S
    assert Asked(one).all_tokens() == alone


def test_an_update_changes_both_parts_and_is_taken_back_whole(wide: tuple[Served, list[list[int]]]) -> None:
    one, alone = wide
    before = {name: replica.born for name, replica in parts(one).items()}
    failed = one.deploy(("max_model_len: 512", "max_model_len: 512, no_such_flag: 1"), code=None)
    assert failed.returncode != 0
    one.in_rotation(1, seconds=BACK_S)
    assert Asked(one).all_tokens() == alone
    one.deploy(("max_model_len: 512", "max_model_len: 500"))
    after = {name: replica.born for name, replica in parts(one).items()}
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in before)
    assert Asked(one).all_tokens() == alone
