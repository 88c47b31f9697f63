"""Write the tables of docs/hardware.md from the compatibility table: `python docs/hardware_page.py`."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from onprem_llm.planning.compatibility.machines import branch_for
from onprem_llm.planning.compatibility.table import Fp8Cache, Image, Quantization, Sourced, Table, table
from onprem_llm.planning.compatibility.verdict import why_not

PAGE = Path(__file__).with_name("hardware.md")
BEGIN = "<!-- Made from cli/onprem_llm/planning/compatibility/table.yaml by docs/hardware_page.py -->"
END = "<!-- Made: end -->"


def made(page: str, known: Table) -> str:
    """Return the page with its tables as the data has them."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    parts = (_drivers(known), _gpus(known), _images(known), _numbers(known), _sources(known))
    return head + "\n\n".join((BEGIN, *parts, END)) + tail


def _drivers(known: Table) -> str:
    rows = [(f"R{row.branch}", row.cuda, _from(row)) for row in known.drivers]
    majors = [(f"CUDA {row.cuda}.x", row.driver, _from(row)) for row in known.majors]
    ahead = [
        (f"CUDA {row.cuda}", ", ".join(f"R{one}" for one in row.branches), _from(row)) for row in known.forward.rows
    ]
    since = f"With `{known.forward.switch}` (from v{known.forward.since} on), data centre GPUs alone:"
    return "\n\n".join((
        "### Drivers",
        _table(("branch", "newest CUDA", "source"), rows),
        "The oldest driver that runs programs of a major at all:",
        _table(("programs", "driver", "source"), majors),
        since,
        _table(("image", "older branches", "source"), ahead),
    ))  # fmt: skip


def _gpus(known: Table) -> str:
    rows = [
        (
            row.capability,
            ", ".join(row.data_center) or "-",
            ", ".join(row.other) or "-",
            f"{row.since} to {row.until}.x" if row.until else f"from {row.since} on",
            _from(row),
        )
        for row in known.capabilities
    ]
    columns = ("compute capability", "for data centres", "others", "CUDA of the image", "source")
    return f"### GPUs\n\n{_table(columns, rows)}"


def _images(known: Table) -> str:
    rows = [_image(row, known) for row in known.images]
    columns = ("vllm/vllm-openai:", "for", "CUDA", "driver from", "no limits from", "compute capabilities", "source")
    return f"### Images\n\n{_table(columns, rows)}"


def _image(row: Image, known: Table) -> Sequence[object]:
    floor = next(one.driver for one in known.majors if one.cuda == row.cuda.major)
    runs = [str(one.capability) for one in known.capabilities if why_not(one.capability, row, known) is None]
    suffix = f"-{row.variant}" if row.variant else ""
    tags = ", ".join(f"v{release}{suffix}" for release in row.releases)
    return tags, row.architecture, row.cuda, floor, f"R{branch_for(row.cuda, known)}", " ".join(runs), _from(row)


def _numbers(known: Table) -> str:
    bfloat16, fp8 = known.bfloat16, known.fp8
    rows: list[Sequence[object]] = [
        ("`dtype: bfloat16`", bfloat16.capability, "all", _from(bfloat16)),
        ("arithmetic in fp8", fp8.capability, "all", _from(fp8)),
    ]
    rows += [(_cached(row), row.capability or "CPUs", f"from v{row.since}", _from(row)) for row in known.fp8_cache]
    rows += [(f"`quantization: {row.method}`", row.capability, _span(row), _from(row)) for row in known.quantization]
    return f"### Numbers\n\n{_table(('what', 'from compute capability', 'releases', 'source'), rows)}"


def _cached(row: Fp8Cache) -> str:
    of = " of MLA" if row.attention == "latent" else ""
    return f"`kv_cache_dtype: fp8`{of}{f', up to {row.most}' if row.most else ''}"


def _span(row: Quantization) -> str:
    parts = (f"from v{row.since}" if row.since else "", f"to v{row.until}" if row.until else "")
    return " ".join(part for part in parts if part) or "all"


def _sources(known: Table) -> str:
    rows = [(name, f"<{one.url}>", one.read, one.note) for name, one in known.sources.items()]
    return f"### Sources\n\n{_table(('name', 'address', 'read', 'what stands there'), rows)}"


def _from(row: Sourced) -> str:
    return ", ".join(row.source)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return "\n".join(_lines(columns, rows))


def _lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield _line(columns)
    yield _line(["---"] * len(columns))
    yield from (_line(row) for row in rows)


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text("utf-8"), table()), "utf-8")
