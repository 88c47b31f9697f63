"""What a rank's container knows of the others' names, under both spellings of their addresses."""

from pathlib import Path

from onprem_llm.gang_program.names import add_mapped

HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost
# 10.0.0.7 was here

10.0.0.2\twide-0
10.0.0.3 wide-0-rank1 # the second
fd00::4 other
"""


def test_addresses_of_others_are_there_as_ipv6_has_them(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(HOSTS)
    add_mapped(path)
    text = path.read_text()
    assert text.startswith(HOSTS)
    assert text.removeprefix(HOSTS) == "::ffff:10.0.0.2 wide-0\n::ffff:10.0.0.3 wide-0-rank1\n"
    add_mapped(path)
    assert path.read_text() == text


def test_a_file_that_is_not_there_or_is_no_text_stays_so(tmp_path: Path) -> None:
    add_mapped(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe 10.0.0.2")
    add_mapped(tmp_path / "bytes")
    assert (tmp_path / "bytes").read_bytes() == b"\xff\xfe 10.0.0.2"
