"""Numbers on the command line: plain digits, or the option is named in one line."""

import click
import pytest

from tests.conftest import faces_bytes
from toolkit.cli import VERBS, cli, main
from toolkit.cli.numbers import REAL, STRICT, WHOLE, Plain

SLIPS = ["１０", "1_0", " 7 ", "٣", "0x1", "1 0", "", "+", "1e5000_0", "五", "7\n", "--5"]


@pytest.mark.parametrize("text", SLIPS)
def test_slips_are_no_numbers(text):
    assert WHOLE.fullmatch(text) is None
    assert REAL.fullmatch(text) is None


@pytest.mark.parametrize(
    "text", ["0", "-1", "+12", "1.5", ".5", "1.", "1e-3", "-2.5E+7", "nan", "-inf"]
)
def test_what_python_and_json_write_is_read(text):
    assert REAL.fullmatch(text)
    assert str(STRICT["float"].convert(text, None, None)) == str(float(text))


@pytest.mark.parametrize("verb", VERBS)
def test_every_number_of_every_verb_is_read_strictly(verb):
    kinds = {option.name: option.type for option in cli.get_command(None, verb).params}
    assert not [name for name, kind in kinds.items() if isinstance(kind, click.types.IntParamType)]
    assert not [
        name for name, kind in kinds.items() if isinstance(kind, click.types.FloatParamType)
    ]
    assert all(type(kind) is Plain for kind in kinds.values() if kind.name in STRICT)


@pytest.mark.parametrize(
    "option", ["--steps", "-n", "--seed", "-g", "--eta", "--grid", "--interval", "-l"]
)
@pytest.mark.parametrize("slip", ["１", "1_0", "--5", "9" * 5000])
def test_a_slip_names_the_option(option, slip, faces, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = f"0,{slip}" if option in ("--grid", "--interval") else slip
    args = [
        "sample",
        str(faces),
        "-o",
        "a.npy",
        *([] if option == "-l" else ["-l", "0"]),
        option,
        value,
    ]
    with pytest.raises(SystemExit) as stop:
        main(args)
    out, err = capfd.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert {"-n": "n", "-g": "guidance", "-l": "label"}.get(option, option.strip("-")) in err
    assert len(err) < 400
    assert not list(tmp_path.iterdir())


def test_a_stranger_cannot_name_a_file_to_evaluate_on(tmp_path, capfd):
    """A spec is somebody else's text: only names of built-in sets are taken from it."""
    path = tmp_path / "m.onnx"
    path.write_bytes(faces_bytes())  # says it was trained on 'drawn at random'
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(path)])
    assert stop.value.code == 2
    assert "data: expected --data" in capfd.readouterr().err


@pytest.mark.parametrize(
    "report", ["no JSON", "[]", "{}", '{"rows":[]}', '{"rows":[{"relative":{}}]}', "[" * 10**5]
)
def test_a_parity_report_that_is_none(report, tmp_path, capfd):
    import onnx

    from runtimes.modelfile import REPORT_KEY, seal

    model = onnx.ModelProto.FromString(faces_bytes())
    del model.metadata_props[1:]
    model.metadata_props.add(key=REPORT_KEY, value=report)
    path = tmp_path / "m.onnx"
    path.write_bytes(seal(model.SerializeToString()))
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(path)])
    out, err = capfd.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert "expected a parity report" in err
    assert err.count("\n") == 1
