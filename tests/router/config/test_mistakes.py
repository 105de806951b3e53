"""Mistakes in the operators' file: for each the place and the advice."""

from __future__ import annotations

import pytest

from router.config.reader import ConfigError, load

SETS = 'sets: {a: {url: "http://h:1"}, b: {url: "http://h:2"}}'


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("", 1, 1, "empty"),
        ("- a", 1, 1, "must be a mapping"),
        ("version: 1\nsets: }", 2, 7, "not valid YAML"),
        ("version: 1\nsetz: {}\n", 2, 1, "did you mean 'sets'?"),
        (f"version: 1\n{SETS}", 1, 1, "lacks 'default'"),
        (f"version: 1\nversion: 2\n{SETS}\ndefault: {{weights: {{a: 100}}}}", 2, 1, "appears twice"),
        (f"version: one\n{SETS}\ndefault: {{weights: {{a: 100}}}}", 1, 10, "whole number"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: {{a: 99.99}}", 4, 12, "add 0.01"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: {{a: 95, b: 5.01}}", 4, 12, "take away 0.01"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: {{a: 99.995, b: 0.005}}", 4, 16, "two decimals"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: {{a: -5, b: 105}}", 4, 16, "from 0 to 100"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: {{a: 95%, b: 5}}", 4, 16, "write 5"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: {{a: 95, a: 5}}", 4, 20, "appears twice"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: {{a: 95, c: 5}}", 4, 20, "lacks"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: [a, b]", 4, 12, "must be a mapping"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: {{a: 100}}\n  key: [cookie]", 5, 9, "header:NAME"),
        (f"version: 1\n{SETS}\ndefault:\n  weights: {{a: 100}}\n  key: account", 5, 8, "must be a list"),
        ("version: 1\nsets:\n  a: {url: 8101}\ndefault: {weights: {a: 100}}", 3, 12, "http://"),
        (
            'version: 1\nsets:\n  a: {url: "https://h:1"}\ndefault: {weights: {a: 100}}',
            3,
            12,
            "must begin with http://",
        ),
        ('version: 1\nsets:\n  a: {url: "http://h:99999"}\ndefault: {weights: {a: 100}}', 3, 12, "no URL"),
        (
            'version: 1\nsets:\n  a: {url: "http://h:1/x"}\ndefault: {weights: {a: 100}}',
            3,
            12,
            "end after the port",
        ),
        ("version: 1\nsets:\n  a: {state: ready}\ndefault: {weights: {a: 100}}", 3, 6, "lacks 'url'"),
        (
            'version: 1\nsets:\n  A_b: {url: "http://h:1"}\ndefault: {weights: {A_b: 100}}',
            3,
            3,
            "small letters",
        ),
        (
            'version: 1\nsets:\n  a: {url: "http://h:1", state: drained}\ndefault: {weights: {a: 100}}',
            3,
            33,
            "ready, drain, maint",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nhealth: {{interval: 2}}",
            4,
            20,
            "with its unit",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nhealth: {{fall: 0}}",
            4,
            16,
            "from 1 to 100",
        ),
        (f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nretry: {{budget: 20}}", 4, 17, "20%"),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nretry: {{replay_body_max: 64kb}}",
            4,
            26,
            "KiB",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nretry: {{retry_sync: 1}}",
            4,
            21,
            "true or false",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n  - {{name: x, to: a}}",
            5,
            5,
            "lacks 'when'",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n  - {{name: x, when: {{path: /}}}}",
            5,
            5,
            "either `to: SET`",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {path: {regex: '('}}, to: a}",
            5,
            36,
            "no regular expression",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {account: {regex: '(?!acme).*'}}, to: a}",
            5,
            39,
            "lookaround is not supported; write a rule before this one",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n  - {{name: x, when: {{}}, to: a}}",
            5,
            21,
            "match everything",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrollout: {{set: c, steps: []}}",
            4,
            16,
            "not in `sets`",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrollout: {{set: b, steps: [{{hold: 1m}}]}}",
            4,
            27,
            "needs a weight or a pause",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\ntimeouts: {{conect: 2s}}",
            4,
            12,
            "did you mean 'connect'?",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\ntimeouts: {{connect: 2}}",
            4,
            21,
            "write connect: 3s",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\ntimeouts: {{total: 0s}}",
            4,
            19,
            "must lie between",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nhealth: {{slow_start: on}}",
            4,
            22,
            "slow_start: 10s",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nhealth: {{eject_for: 10m}}",
            4,
            21,
            "eject_max (300 s) must not be below eject_for (600 s)",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nretry: {{patience: 2m}}",
            4,
            19,
            "patience: 1500ms",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {header: {}}, to: a}",
            5,
            30,
            "match everything",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {account: {in: []}}, to: a}",
            5,
            36,
            "never match",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            '  - {name: x, when: {image: {prefix: ""}}, to: a}',
            5,
            38,
            "match everything",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {image: [a]}, to: a}",
            5,
            29,
            "{prefix: …}",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {path: /}, to: c}",
            5,
            36,
            "`sets` lacks",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {path: /}, weights: {a: 50, b: 49.99}}",
            5,
            41,
            "add 0.01",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {path: /}, to: a}\n  - {name: x, when: {path: /}, to: b}",
            6,
            12,
            "first on line 5",
        ),
        ("version: 1\nsets: {}\ndefault: {weights: {a: 100}}", 2, 7, "write a: {url:"),
        (
            'version: 1\nsets:\n  a: {url: "http://u@h:1"}\ndefault: {weights: {a: 100}}',
            3,
            12,
            "and no user",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nhealth: {{path: readyz}}",
            4,
            16,
            "write path: /readyz",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            '  - {name: "", when: {path: /}, to: a}',
            5,
            12,
            "write name: qa",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {header: {x canary: b}}, to: a}",
            5,
            31,
            "no header's name",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {path: {prefix: /a, exact: /b}}, to: a}",
            5,
            28,
            "exactly one of",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules: [qa]",
            4,
            9,
            "must be a mapping",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules: {{name: qa}}",
            4,
            8,
            "must be a list",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {path: /}, to: [a]}",
            5,
            36,
            "write to: b",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
            "  - {name: x, when: {path: /}, to: a, if_down: wait}",
            5,
            48,
            "fail, default",
        ),
        (f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\n[a]: 1", 4, 1, "must be a plain word"),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nchange: {{why: }}",
            4,
            15,
            'write why: "ramp',
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nretry: {{replay_body_max: 2MiB}}",
            4,
            26,
            "1024 KiB at most",
        ),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nretry: {{attempts: 0}}",
            4,
            19,
            "write attempts: 2",
        ),
        (f"version: 1\n{SETS}\ndefault:\n\tweights: {{a: 100}}", 4, 1, "spaces, not tabs"),
        (
            f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}",
            3,
            28,
            "close the bracket that opens on line 3",
        ),
        (f'version: 1\nchange: {{why: "x}}\n{SETS}', 3, 18, "bracket that opens on line 2, or a quote in it"),
        ("version: 1\nchange: {why: 'x}\n", 2, 18, "close the quote that opens on line 2"),
        (f"version: 1\n{SETS}\noperator_token_file: router.token", 3, 22, "absolute path"),
        (
            'version: 1\nsets:\n  a: {url: "http://h:1", operator_token_file: [x]}',
            3,
            47,
            "operator_token_file",
        ),
        ("version: 1\nchange: {why: @ops}\n", 2, 15, "quotes around the text that begins with @"),
    ],
)
def test_each_mistake_is_placed_and_explained(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text.encode())
    mistakes = caught.value.mistakes
    assert [(m.line, m.column) for m in mistakes if says in m.message][:1] == [(line, column)], caught.value
    assert f"line {line}, column {column}: " in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load(b"version: x\nsets: {a: {url: ftp://h}}\ndefault: {weights: {a: 1, b: 2}, kee: 3}\nfoo: 1")
    assert {mistake.line for mistake in caught.value.mistakes} == {1, 2, 3, 4}


def test_one_mistake_that_is_named_again_and_again_is_bounded() -> None:
    text = (
        f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n- &r {{{'x' * 1000}: 1}}\n"
        + "- *r\n" * 5000
    )
    with pytest.raises(ConfigError, match="correct these first") as caught:
        load(text.encode())
    assert len(str(caught.value)) < 100_000


@pytest.mark.parametrize(
    "text", ["version: 1\nsets: {a: [", "version: 1\nsets: {a: [\n", "version: 1\nsets: {a: [\n\n\n"]
)
def test_of_a_truncated_file_only_lines_that_are_there_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="close the bracket that opens on line 2") as caught:
        load(text.encode())
    assert caught.value.mistakes[0].line <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        (b"version: 1\nsets: {\x00}\n", 2, 8, "U+0000"),
        (b"version: 1\n# \xc3\xa9 \x07\n", 2, 5, "U+0007"),
        (b"version: 1\n# \xc3\xa9 \xff\n", 2, 5, "UTF-8"),
        (b"version: 1\n---\nversion: 2\n", 2, 1, "remove the line `---`"),
        (b"version: 1\n...\nversion: 2\n", 3, 1, "nothing may follow the line `...`"),
        (b"version: *one\n", 1, 10, "quotes around the *"),
    ],
)
def test_what_is_no_yaml_has_its_place(text: bytes, line: int, column: int, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.column) == (line, column), mistake
    assert says in mistake.message
