from __future__ import annotations

from pathlib import Path

import pytest

from reconstruct.errors import ArtifactError
from reconstruct.storage.pairs import ordered, read_pairs, write_pairs

NAMES = ["a.jpg", "b b.jpg", "b.jpg", "#c.jpg", "写 真/d.jpg", "a/b.jpg", "a-b.jpg"]


def test_any_names_survive_the_file(tmp_path: Path) -> None:
    pairs = sorted(ordered(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :])
    write_pairs(tmp_path / "pairs.txt", reversed(pairs))
    assert read_pairs(tmp_path / "pairs.txt", NAMES) == (pairs, [])
    lines = (tmp_path / "pairs.txt").read_text(encoding="utf-8").splitlines()
    assert "a.jpg b.jpg" in lines, "as COLMAP and hloc write it"
    assert "a.jpg\tb b.jpg" in lines


def test_no_pairs_are_an_empty_file(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.txt", [])
    assert (tmp_path / "pairs.txt").read_text() == ""
    assert read_pairs(tmp_path / "pairs.txt", NAMES) == ([], [])


def test_a_list_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(
        "# a comment\n#another\n\nb.jpg a.jpg\r\na.jpg b.jpg\nb b.jpg a.jpg\n"
        "a.jpg a.jpg\na.jpg gone.jpg\n#c.jpg a.jpg\n",
        encoding="utf-8",
    )
    pairs, absent = read_pairs(path, NAMES)
    assert pairs == [("#c.jpg", "a.jpg"), ("a.jpg", "b b.jpg"), ("a.jpg", "b.jpg")]
    assert absent == ["a.jpg a.jpg", "a.jpg gone.jpg"]


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg\tb.jpg\ta-b.jpg"])
def test_a_line_that_is_not_two_names(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"a.jpg b.jpg\n{line}\n")
    with pytest.raises(ArtifactError, match=r"list\.txt:2: expected two image names"):
        read_pairs(tmp_path / "list.txt", NAMES)


def test_a_line_that_can_be_cut_in_two_ways(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a b c\n")
    with pytest.raises(ArtifactError, match="put a tab between"):
        read_pairs(tmp_path / "list.txt", ["a", "b c", "a b", "c"])


def test_a_line_of_a_million_spaces_is_no_work(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg" + " " * 10**6 + "b.jpg\n")
    with pytest.raises(ArtifactError, match="expected two image names") as error:
        read_pairs(tmp_path / "list.txt", NAMES)
    assert len(str(error.value)) < 400


def test_an_unreadable_list(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "binary", tmp_path / "absent"):
        with pytest.raises(ArtifactError, match="cannot be read as a list of pairs"):
            read_pairs(path, NAMES)
