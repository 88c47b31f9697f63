"""A plan on disk, for people who decide before others apply."""

from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan_paths import check_paths
from onprem_llm.planning.serial import from_json
from onprem_llm.planning.types import Plan
from onprem_llm.seam import write_plan
from onprem_llm.spec.site import Site


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
    except UnicodeDecodeError as error:
        raise InvalidError(f"{path}: this is no text: {error}", hint="make it again: onprem-llm plan --out") from None
    return from_json(text, str(path))


def check_folder(plan: Plan, folder: Path, site: Site) -> None:
    """Refuse a plan that was read from `folder` and leads out of what this site has on its hosts."""
    try:
        check_paths(plan, site)
    except ValueError as error:
        raise InvalidError(
            f"{folder / 'plan.json'}: {error}",
            hint="it was edited, or made for another onprem_llm_site.data_root: make it again: "
            "onprem-llm plan MODEL_YAML --out DIR",
        ) from None
