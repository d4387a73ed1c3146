import pytest

from runtimes.choices import choose, quoted


def test_a_known_name():
    assert choose("solver", "heun", {"euler": 1, "heun": 2}) == "heun"


@pytest.mark.parametrize(
    ("got", "hint"),
    [
        ("huen", "did you mean 'heun'?"),
        ("zzz", "choose one"),
        (3, "choose one"),
        (None, "choose one"),
    ],
)
def test_an_unknown_one(got, hint):
    with pytest.raises(ValueError, match="solver: expected one of euler, heun") as error:
        choose("solver", got, ["euler", "heun"])
    assert repr(got) in str(error.value)
    assert hint in str(error.value)


@pytest.mark.parametrize("got", [["heun"], {}, b"heun", True])
def test_not_even_a_name(got):
    with pytest.raises(ValueError, match="solver: expected"):
        choose("solver", got, {"heun": 1})


@pytest.mark.parametrize(
    "got",
    ["x" * 10**6, 10**5000, ["\n"] * 10**5, "a\x1b[2Jb\n"],
    ids=["long", "huge", "list", "escape"],
)
def test_what_came_is_quoted_in_one_short_line(got):
    with pytest.raises(ValueError, match="solver: expected") as error:
        choose("solver", got, ["euler", "heun"])
    assert len(str(error.value)) < 250
    assert str(error.value).isprintable()
    assert quoted(got) in str(error.value)
