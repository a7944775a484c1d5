"""What the page shows of a rewrite: word by word, and at once however long the text is."""

import json

import pytest


@pytest.fixture
def differ(store, serve, chromium):
    """Runs JavaScript in which `difference` and `shownDifference` are the page's own."""
    with serve() as address:
        page = chromium.new_page()
        page.goto(address)

        def evaluate(script, *arguments):
            return page.evaluate(
                f"""async (given) => {{
                    const {{ difference, shownDifference }} = await import("/static/diff.js");
                    return ({script})(...given);
                }}""",
                arguments,
            )

        yield evaluate
        page.close()


def test_by_hand(differ):
    def of(before, after):
        return [tuple(run) for run in differ("difference", before, after)]

    assert of("is fine.", "is great, really.") == [
        ("same", "is "),
        ("gone", "fine."),
        ("new", "great, really."),
    ]
    assert of("a b c", "a c") == [("same", "a "), ("gone", "b "), ("same", "c")]
    assert of("a c", "a b c") == [("same", "a "), ("new", "b "), ("same", "c")]
    assert of("", "all new") == [("new", "all new")]
    assert of("all gone", "") == [("gone", "all gone")]
    # Two changes with a space between them are one.
    assert of("x a b y", "x c d y") == [
        ("same", "x "),
        ("gone", "a b"),
        ("new", "c d"),
        ("same", " y"),
    ]
    # A word that moved: the fewest words out and in.
    assert of("one two three four", "two three one four") == [
        ("gone", "one "),
        ("same", "two three"),
        ("new", " one"),
        ("same", " four"),
    ]


def test_it_spells_both_texts_and_cuts_no_character(differ):
    bad = differ(
        """() => {
            let state = 1;
            const drawn = (n) => (state = (state * 16807) % 2147483647) % n;
            const pieces = ["a", "b ", "c\\n", "\\u{1f600}", "\\u{1f601}", " ", "x".repeat(150)];
            const text = () => Array.from({ length: drawn(12) }, () => pieces[drawn(7)]).join("");
            const bad = [];
            for (let n = 0; n < 500; n += 1) {
                const before = text(), after = text(), runs = difference(before, after);
                const spelt = (other) => runs.filter(([kind]) => kind !== other)
                    .map(([, run]) => run).join("");
                const whole = runs.every(([, run]) => run && run.isWellFormed());
                if (spelt("new") !== before || spelt("gone") !== after || !whole) {
                    bad.push([before, after]);
                }
            }
            return bad;
        }"""
    )
    assert bad == []


WORDS = "'word and more '.repeat(70000)"
LINES = "Array.from({ length: 50000 }, (_, n) => `line ${n} of some words`).join('\\n')"


@pytest.mark.parametrize(
    ("text", "change", "changes"),
    [
        # Two words far apart, in one line of a megabyte.
        (WORDS, "(t) => 'new ' + t.slice(0, -5) + 'end'", ["new ", "more|end"]),
        # 100 of 50,000 lines.
        (LINES, "(t) => t.replaceAll(/line (\\d*)500 /g, 'LINE $1500 ')", 50),
        # Too much for words and for lines: gone and new as a whole, by their beginnings.
        (WORDS, "(t) => t.replaceAll('word', 'bird')", 1),
    ],
)
def test_a_megabyte_is_compared_at_once(differ, text, change, changes):
    shown, runs, milliseconds = differ(
        f"""() => {{
            const before = {text}, after = ({change})(before);
            const start = performance.now();
            const nodes = shownDifference(before, after);
            const spent = performance.now() - start;
            const runs = difference(before, after).map(([kind, run]) => [kind, run.slice(0, 50)]);
            return [nodes.map((node) => node.textContent).join("|"), runs, spent];
        }}"""
    )
    print(f"a megabyte is compared in {milliseconds:.0f} ms")  # noqa: T201
    assert milliseconds < 2000
    assert len(shown) < 100_000
    assert "characters" in shown
    new = [run for kind, run in runs if kind == "new"]
    if isinstance(changes, int):
        assert len(new) == changes, json.dumps(runs)[:500]
    else:
        assert new == [change.rpartition("|")[2] for change in changes]
