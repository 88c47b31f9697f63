"""In which order a gateway moves: what takes long is done while everything still serves."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import recorded_facts as made

from onprem_llm import gateway_moves
from onprem_llm.connection import Connection
from onprem_llm.gateway_moves import GatewayMove, carry_out
from onprem_llm.look import View
from onprem_llm.output import PlainProgress
from onprem_llm.planning.types import Plan, Wanted

MODEL = made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    facts = made.applied(made.planned(made.lab(), made.deployment(MODEL)), made.lab())

    def note(word: str) -> None:
        monkeypatch.setattr(gateway_moves, word, lambda *arguments, **_: found.append(word.lstrip("_")))

    def carry(plan: Plan, *_: object) -> None:
        found.extend(f"{step.kind} on {', '.join(step.orders)}" for step in plan.steps)

    def take_away(host: str, projects: tuple[str, ...], *_: object) -> None:
        found.append(f"{', '.join(projects)} leaves {host}")

    for word in ("_copy", "settle", "set_mark", "record_event"):
        note(word)
    monkeypatch.setattr(gateway_moves, "locked", lambda *_, **__: nullcontext())
    monkeypatch.setattr(gateway_moves, "look_whole", lambda *_, **__: View(made.current(facts), (), "salt"))
    monkeypatch.setattr(gateway_moves, "with_images", lambda wanted, *_: with_archive(wanted))
    monkeypatch.setattr(gateway_moves, "carry", carry)
    monkeypatch.setattr(gateway_moves, "take_away", take_away)
    return found


def with_archive(wanted: Wanted) -> Wanted:
    return replace(wanted, ui_image=made.archive(made.UI_IMAGE))


def test_the_pages_image_is_there_before_the_page_stops(done: list[str]) -> None:
    move = GatewayMove("lab-1", "lab-2", made.Site(), swapped=False, was_second=False, stays=False, lines=())
    carry_out(move, Connection(Path("inventory.ini")), PlainProgress(), break_lock=False)
    assert done.index("stage on lab-2") < done.index("open-webui leaves lab-1")
    assert done[:3] == ["copy", "settle", "stage on lab-2"]


def test_who_stops_it_in_the_middle_is_told_how_to_go_on(
    done: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    move = GatewayMove("lab-1", "lab-2", made.Site(), swapped=False, was_second=False, stays=False, lines=())
    monkeypatch.setattr(gateway_moves, "set_mark", stopped)
    with pytest.raises(KeyboardInterrupt):
        carry_out(move, Connection(Path("inventory.ini")), PlainProgress(), break_lock=False)
    assert "Go on: onprem-llm gateway move lab-2" in capsys.readouterr().err
