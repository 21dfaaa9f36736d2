"""Files that were damaged, or written to harm: a whole one, changed in a few places."""

from __future__ import annotations

from hypothesis import strategies as st

NUMBERS = [0, 1, 2, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 10**6, 10**9, 10**12, 2**63, 2**64 - 1]
WORDS = [
    *("nan", "inf", "-inf", "-1", "0", "1e400", "-1e-320", "99999999999999999999", "4294967296"),
    *(
        "",
        "x",
        "#",
        "./",
        "é",
        "\u2028",
        "\x00",
        "\t",
        "\n",
        "\r",
        " ",
        "[" * 40,
        "{a: ",
        "*a",
        "&a",
    ),
    *("!!int x", "!!float", "2026-13-45", "null", "[]", "{}", "'", '"', "<<", "9" * 400),
]


_CHANGES = ["byte", "number", "number", "insert", "drop", "repeat", "end"]


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """``whole`` with bytes and numbers overwritten, inserted, repeated, cut out or cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(_CHANGES))
        if kind == "byte":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "number":
            size, order = draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from(["little", "big"]))
            value = draw(st.sampled_from(NUMBERS)) % (1 << (8 * size))
            data[at : at + size] = value.to_bytes(size, order)
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
        else:
            del data[at:]
    return bytes(data)


@st.composite
def damaged_text(draw: st.DrawFn, whole: bytes) -> bytes:
    """``whole``, a text, with words replaced, put in, taken out or swapped, or its end cut off."""
    words = whole.decode("utf-8").split(" ")
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(words) - 1, 0)))
        kind = draw(st.sampled_from(["replace", "replace", "insert", "drop", "swap", "end"]))
        word = draw(st.sampled_from(WORDS) | st.text(max_size=8))
        if kind == "replace":
            words[at : at + 1] = [word]
        elif kind == "insert":
            words[at:at] = [word]
        elif kind == "drop":
            del words[at : at + 1]
        elif kind == "swap" and words:
            other = draw(st.integers(0, len(words) - 1))
            words[at], words[other] = words[other], words[at]
        elif kind == "end":
            del words[at:]
    text = " ".join(words).encode("utf-8", "surrogatepass")
    return draw(damaged_bytes(text)) if draw(st.integers(0, 3)) == 0 else text
