"""A question that is answered with no changes nothing, and is no interruption."""

import sys
from pathlib import Path

import pytest
from recorded_facts import MODEL, VLLM_IMAGE, deployment, lab, planned

from onprem_llm import changing, main, output
from onprem_llm.changing import carry_out
from onprem_llm.connection import Connection


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> int:
    plan = planned(lab(), deployment(MODEL.format(name="tiny", image=VLLM_IMAGE, gpus=1, model="H100", port=8000)))

    def command(**_: object) -> None:
        carry_out(
            plan, "Go on?", Connection(Path("inventory.ini")), yes=False, break_lock=False, as_json=False, done="Done."
        )

    def confirm(*_: object, **__: object) -> bool:
        if text == "^C":
            raise main.click.Abort
        return text == "y"

    monkeypatch.setattr(changing, "apply", lambda *_, **__: None)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(output.click, "confirm", confirm)
    monkeypatch.setattr(main.cli, "main", command)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


def test_no_says_that_nothing_was_changed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(monkeypatch, "n") == 1
    assert capsys.readouterr().err == "Nothing was changed.\n"


def test_yes_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(monkeypatch, "y") == 0
    assert "Done." in capsys.readouterr().out


def test_an_interruption_stays_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(monkeypatch, "^C") == 130
    assert capsys.readouterr().err == "Interrupted.\n"
