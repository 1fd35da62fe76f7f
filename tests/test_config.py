from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcam.config import find_config, load, render_toml
from segcam.errors import UsageError
from segcam.settings import OPTIONS, SECTIONS, Option, Settings, parse_time

ROOT = Path(__file__).resolve().parents[1]


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None, **flags: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(path, flags)  # type: ignore[arg-type]
    return caught.value


def test_the_repository_holds_the_defaults() -> None:
    written = (ROOT / "config.toml").read_text(encoding="utf-8")
    assert written == render_toml(Settings()), "run: segcam --print-config is not it; render_toml(Settings()) is"


def test_defaults_are_valid_and_say_so() -> None:
    resolved = load(ROOT / "config.toml", {})
    assert resolved.settings == Settings() == load(None, {}).settings
    assert set(load(None, {}).origins.values()) == {"default"}
    assert {option.section for option in OPTIONS.values()} == set(SECTIONS)


def test_flag_beats_file_beats_default(tmp_path: Path) -> None:
    path = write(tmp_path, "segcam_config = 1\n[overlay]\nalpha = 0.25\nlegend = true\n[output]\noutput = ['a.mp4']\n")
    resolved = load(path, {"alpha": "0.75", "hud": False, "output": ["b.mp4", "null"]})
    assert (resolved.settings.alpha, resolved.settings.legend, resolved.settings.crf) == (0.75, True, 23)
    assert resolved.settings.output == ("b.mp4", "null")
    assert resolved.origins["alpha"] == "--alpha"
    assert resolved.origins["hud"] == "--no-hud"
    assert resolved.origins["legend"] == f"config.toml: {path}"
    assert resolved.origins["crf"] == "default"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[overlay]\nalpah = 1", "unknown key 'alpah' in [overlay]", "Did you mean alpha?"),
        ("[overlai]\nalpha = 1", "unknown section 'overlai'", "Did you mean overlay?"),
        ("[overlay]\ncrf = 1", "'crf' is not a key of [overlay]", "belongs to [output]"),
        ("[overlay]\nqueue-size = 1", "unknown key 'queue-size' in [overlay]", "queue_size in [run]"),
        ("alpha = 1", "unknown key 'alpha' at the top level", "belongs to [overlay]"),
        ("overlay = 3", "'overlay' is not a section", "[overlay]"),
        ("[overlay]\nalpha = 'half'", 'alpha: found "half", expected a number from 0 to 1', "--alpha"),
        ("[overlay]\nalpha = true", "alpha: found true, expected a number", ""),
        ("[overlay]\nalpha = nan", "alpha: found nan, expected a number", ""),
        ("[overlay]\nalpha = 1.01", "alpha: found 1.01, expected a number from 0 to 1", ""),
        (f"[input]\nframes = 1{400 * '0'}.0", "frames: found inf, expected a whole number, 0 or more", ""),
        ("[input]\nevery = 0", "every: found 0, expected a whole number, 1 or more", ""),
        ("[input]\nevery = 1.5", "every: found 1.5, expected a whole number", ""),
        ("[input]\nsource = 0", "source: found 0, expected text", ""),
        ("[input]\nstart = '1:90'", "start: '1:90' is not a time", "seconds"),
        ("[input]\nstart = 00:01:30", "start: found 00:01:30, expected seconds", ""),
        ("[output]\noutput = 'a.mp4'", 'output: found "a.mp4", expected a list of texts', ""),
        ("[output]\noutput = ['a', 1]", 'output: found ["a", 1], expected a list of texts', ""),
        ("[output]\nhud = 1", "hud: found 1, expected true or false", ""),
        ("[output]\npreset = 'fastest'", "expected one of ultrafast, superfast", "Did you mean"),
        ("[engine]\nruntime = 'OpenVino'", 'found "OpenVino"', "Did you mean openvino?"),
        ("segcam_config = 2", "segcam_config = 2, expected 1", "another version"),
        ("[overlay", "not valid TOML", "--print-config"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = write(tmp_path, text)
    error = refusal(path)
    assert message in error.message
    assert hint in error.hint
    assert str(path) in error.message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("alpha", "1.5", "--alpha: found 1.5, expected a number from 0 to 1"),
        ("alpha", "half", '--alpha: found "half", expected a number from 0 to 1'),
        ("queue_size", "65", "--queue-size: found 65, expected a whole number from 1 to 64"),
        ("queue_size", "3.0", '--queue-size: found "3.0", expected a whole number from 1 to 64'),
        ("frames", "-1", "--frames: found -1, expected a whole number, 0 or more"),
        ("start", "-3", "--start: '-3' is not a time"),
        ("image_format", "jpeg", '--image-format: found "jpeg", expected one of png, jpg'),
        ("alhpa", "1", "no setting is called 'alhpa'"),
    ],
)
def test_bad_flags_are_refused(name: str, value: str, message: str) -> None:
    assert message in refusal(None, **{name: value}).message


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.toml").message
    assert "cannot be read" in refusal(tmp_path).message
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refusal(binary).message


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("segcam_config = 1\n", True),
        ("segcam_config = 2\n", True),
        ("segcam_config = 1\n[overlay\n", True),
        ("[segcam]\nsegcam_config = 1\n", False),
        ("title = 'another program'\n", False),
        ("not toml at all", False),
        ("", False),
    ],
)
def test_only_our_own_file_is_found(tmp_path: Path, text: str, ours: bool) -> None:
    path = write(tmp_path, text)
    assert find_config(tmp_path) == (path if ours else None)


def test_no_file_is_found_where_none_is(tmp_path: Path) -> None:
    assert find_config(tmp_path) is None
    (tmp_path / "config.toml").mkdir()
    assert find_config(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("90.5", 90.5),
        (".5", 0.5),
        ("1:30", 90.0),
        ("1:02:03.25", 3723.25),
        ("120:00", 7200.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:60", "1:60:00", "1:2:3:4", "1e3", "nan", "1:", ":30", "٣", "1 30"])
def test_bad_times(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        parse_time(text)


def test_numbers_are_times_too(tmp_path: Path) -> None:
    assert load(write(tmp_path, "[input]\nstart = 12.5\n"), {}).settings.start == "12.5"


def test_required_settings() -> None:
    load(None, {"source": "a.mp4"}).require("source")
    with pytest.raises(UsageError, match="--engine is missing") as caught:
        load(None, {"source": "a.mp4"}).require("source", "engine")
    assert "--engine FILE" in caught.value.hint


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().alpha = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://user:secret@camera/1", "rtsp://user:***@camera/1"),
        ("rtsp://user:se@cret@camera:554/1?a=b@c", "rtsp://user:***@camera:554/1?a=b@c"),
        ("http://camera:8080/x@y:z", "http://camera:8080/x@y:z"),
        ("a:b@c.mp4", "a:b@c.mp4"),
    ],
)
def test_passwords_are_not_printed(source: str, shown: str) -> None:
    resolved = load(None, {"source": source, "output": [source]})
    text = render_toml(resolved.settings, resolved.origins)
    assert f'source = "{shown}"' in text
    assert f'output = ["{shown}"]' in text
    assert ("password left out" in text) == (source != shown)


def values_of(option: Option) -> st.SearchStrategy[object]:
    low = 0 if option.low is None else option.low
    high = 2**70 if option.high is None else option.high
    texts = st.text(st.characters(exclude_categories=["Cs"]))
    strategies: dict[str, st.SearchStrategy[object]] = {
        "text": st.sampled_from(option.choices) if option.choices else texts,
        "time": st.sampled_from(["0", "1:30", "2.5"]),
        "whole": st.integers(int(low), int(high)),
        "number": st.floats(low, high),
        "switch": st.booleans(),
        "list": st.lists(texts).map(tuple),
    }
    return strategies[option.kind]


@given(st.fixed_dictionaries({name: values_of(option) for name, option in OPTIONS.items()}))
def test_every_setting_survives_the_file(tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]) -> None:
    settings = Settings(**values)  # type: ignore[arg-type]
    path = write(tmp_path_factory.mktemp("round"), render_toml(settings))
    assert load(path, {}).settings == settings
