from __future__ import annotations

import pytest

from segcam.cli.args import Parser, add_settings, given_flags
from segcam.config import load
from segcam.errors import UsageError
from segcam.settings import OPTIONS


def parsed(*arguments: str) -> dict[str, object]:
    parser = Parser("segcam")
    add_settings(parser)
    return dict(given_flags(parser.parse(arguments)))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {}),
        (("--alpha", "0.7"), {"alpha": "0.7"}),
        (("-e", "a.onnx", "-s", "b.mp4", "-o", "c.mp4", "-o", "window"),
         {"engine": "a.onnx", "source": "b.mp4", "output": ["c.mp4", "window"]}),
        (("--hud",), {"hud": True}),
        (("--no-hud", "--no-cut-head"), {"hud": False, "cut_head": False}),
        (("--loop",), {"loop": "0"}),
        (("--loop", "--hud"), {"loop": "0", "hud": True}),
        (("--loop", "3"), {"loop": "3"}),
        (("--classes", "road,car"), {"classes": "road,car"}),
        (("--classes=-sky",), {"classes": "-sky"}),
        (("--classes", "-sky,-building"), {"classes": "-sky,-building"}),
        (("--classes", "-sky", "-s", "a.mp4"), {"classes": "-sky", "source": "a.mp4"}),
        (("--classes", "-sidewalk", "--legend"), {"classes": "-sidewalk", "legend": True}),
        (("--classes", "-traffic light"), {"classes": "-traffic light"}),
        (("--classes", "-10"), {"classes": "-10"}),
        (("--source", "-"), {"source": "-"}),
        (("--start", "-5"), {"start": "-5"}),
    ],
)  # fmt: skip
def test_what_is_given_is_read(arguments: tuple[str, ...], expected: dict[str, object]) -> None:
    assert parsed(*arguments) == expected


def test_each_setting_has_a_flag_that_is_read_and_checked() -> None:
    examples = {"text": "x", "time": "1:30", "whole": "2", "number": "0.25", "switch": None, "list": "a.mp4"}
    expected = {"text": "x", "time": "1:30", "whole": 2, "number": 0.25, "list": ("a.mp4",)}
    for name, option in OPTIONS.items():
        if option.kind == "switch":
            assert getattr(load(None, parsed(option.flag)).settings, name) is True  # type: ignore[arg-type]
            assert getattr(load(None, parsed(f"--no-{option.flag[2:]}")).settings, name) is False  # type: ignore[arg-type]
            continue
        text = option.choices[-1] if option.choices else examples[option.kind]
        assert text is not None
        value = getattr(load(None, parsed(option.flag, text)).settings, name)  # type: ignore[arg-type]
        assert value == (text if option.choices else expected[option.kind])


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--sorce", "a.mp4"), "no flag is called --sorce", "Did you mean --source?"),
        (("--alhpa=0.5",), "no flag is called --alhpa", "Did you mean --alpha?"),
        (("--no-hub",), "no flag is called --no-hub", "Did you mean --no-hud?"),
        (("--alph", "0.5"), "no flag is called --alph", "Did you mean --alpha?"),
        (("--xyzzy",), "no flag is called --xyzzy", "segcam --help"),
        (("-e", "a.onnx", "b.mp4"), "'b.mp4' is not expected here", "--source b.mp4"),
        (("--alpha",), "--alpha: expected one argument", "segcam --help"),
        (("--classes", "-s", "a.mp4"), "--classes: expected one argument", "segcam --help"),
        (("--hud=yes",), "--hud/--no-hud: ignored explicit argument 'yes'", "segcam --help"),
    ],
)
def test_slips_are_refused(arguments: tuple[str, ...], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*arguments)
    assert message in caught.value.message
    assert hint in caught.value.hint
