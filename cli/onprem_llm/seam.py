"""The seam between Python and Ansible: a plan as a folder of files (docs/adr/0001)."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from onprem_llm.planning.serial import to_json
from onprem_llm.planning.types import Plan

MODEL_FILE = "model.yaml"


@contextmanager
def run_folder() -> Iterator[Path]:
    """Yield a fresh folder that only we can read, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="onprem-llm-run-") as path:
        yield Path(path)


def write_plan(plan: Plan, folder: Path) -> None:
    """Write plan.json, model.yaml, files/<host>/<project>/… and steps/<n>.json into `folder`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "plan.json").write_text(to_json(plan), encoding="utf-8")
    (folder / MODEL_FILE).write_text(plan.model_yaml, encoding="utf-8")
    for host, projects in plan.files.items():
        for project, files in projects.items():
            for path, text in files.items():
                target = folder / "files" / host / project / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
    for number, step in enumerate(plan.steps):
        write_orders(folder, number, step.orders)


def write_orders(folder: Path, number: int, orders: Mapping[str, Mapping[str, object]]) -> Path:
    """Write the orders of one step, host -> order, and return the file."""
    path = order_file(folder, number)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(orders, ensure_ascii=False), encoding="utf-8")
    return path


def order_file(folder: Path, number: int) -> Path:
    """Return where the orders of step `number` are."""
    return folder / "steps" / f"{number}.json"
