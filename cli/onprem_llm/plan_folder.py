"""A plan on disk, for people who decide before others apply."""

from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.planning.serial import from_json
from onprem_llm.planning.types import Plan
from onprem_llm.seam import write_plan


def write_folder(plan: Plan, folder: Path) -> None:
    """Write the plan and every file that it would put on a host; refuse a folder that holds anything."""
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise InvalidError(f"{folder} is not empty", hint="name a new folder: a plan is one thing, not a pile")
    write_plan(plan, folder)


def read_folder(folder: Path) -> Plan:
    """Read a plan that `plan --out` wrote. The files beside plan.json are for people: plan.json is what is applied."""
    path = folder / "plan.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidError(
            f"{path}: no plan is there: {error.strerror}", hint="make one: onprem-llm plan MODEL_YAML --out DIR"
        ) from None
    return from_json(text, str(path))
