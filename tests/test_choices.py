import pytest

from runtimes.choices import choose, named_function, quoted


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


FUNCTIONS = {
    "plain": lambda x: x,
    "power": lambda x, base=10.0, add=0.0: base**x + add,
    "sum": lambda x, *more: x + sum(more),
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", 2.0),
        ("power", 100.0),
        ("power(3)", 9.0),
        ("power( 3 , 0.5)", 9.5),
        ("sum", 2.0),
        ("sum(1e-1,2,3)", 7.1),
    ],
)
def test_a_function_by_name_and_numbers(text, value):
    assert named_function("rule", text, FUNCTIONS)(2.0) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pwoer(3)", "rule: .*did you mean 'power'"),
        ("plain(1)", "rule: expected 'plain' without numbers, got 'plain\\(1\\)'"),
        ("power(1,2,3)", "rule: expected power\\(base=10, add=0\\) with numbers"),
        ("power(0)", "with numbers from 1e-09 to 1e"),
        ("power(1e10)", "with numbers from"),
        ("power(1;2)", "with numbers from"),
        ("power(1_0)", "with numbers from"),
        ("power(１０)", "with numbers from"),
        ("sum()", "rule: expected sum\\(more\\) with numbers"),
        ("sum(" + "x" * 500 + ")", "rule: expected sum"),
        ("power(2)(3)", "with numbers from"),
        ("sum(np.float64(2.0),np.float64(3.0))", "rule: expected sum"),
        ("sum(" + "1," * 500, "rule: expected one of plain, power, sum"),
        ({}, "rule: expected one of"),
    ],
)
def test_a_function_by_wrong_numbers(text, message):
    with pytest.raises(ValueError, match=message) as error:
        named_function("rule", text, FUNCTIONS)
    assert len(str(error.value)) < 200
