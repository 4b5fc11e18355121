import html
import re
from html.parser import HTMLParser

from slm_helpers.reports.html import hide_math, html_page, markdown_to_html, notebook_to_html, sanitise, show_math

import nbformat
import pytest

HOSTILE = [
    "<script>alert(1)</script>",
    '<SCRIPT src="https://example.org/x.js"></SCRIPT >',
    '<img src=x onerror="alert(1)">',
    '<svg onload="alert(1)"><script>alert(1)</script></svg>',
    '<a href="javascript:alert(1)">a link</a>',
    '<a href="java&#115;cript:alert(1)">a link</a>',
    '<a href=" jav\tascript:alert(1)">a link</a>',
    '<a href="data:text/html,<script>alert(1)</script>">a link</a>',
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    '<form action="javascript:alert(1)"><button>b</button></form>',
    '<math><mtext><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    '<p style="background:url(javascript:alert(1))">p</p>',
    '<meta http-equiv="refresh" content="0;url=javascript:alert(1)">',
    '<object data="data:text/html,x"></object><embed src="x"><base href="https://example.org/">',
    '<img src="https://example.org/pixel.png">',
    "<scr<script>x</script>ipt>alert(1)</scr</script>ipt>",
]


class Active(HTMLParser):
    """Collect what a browser would run or fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "svg", "iframe", "object", "embed", "base", "form", "meta", "link"):
            self.found.append(tag)
        for name, value in attrs:
            address = "".join((value or "").split()).lower()
            runs = name.startswith("on") or (name == "href" and address.startswith(("javascript:", "data:", "vbscript:")))
            if runs or (name in ("src", "srcset", "srcdoc", "action") and not address.startswith(("data:image/", "data:audio/"))):
                self.found.append((tag, name, value))
            if name == "style" and "url" in address:
                self.found.append((tag, name, value))


def active(markup):
    parser = Active()
    parser.feed(markup)
    return parser.found


def notebook_of(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def body_of(page):
    return page.partition("<body>")[2]


@pytest.mark.parametrize("markup", HOSTILE)
def test_nothing_active_is_left_in_prose_or_outputs(markup):
    outputs = [
        nbformat.v4.new_output("display_data", {"text/html": markup}),
        nbformat.v4.new_output("display_data", {"text/markdown": f"x {markup} $a$"}),
        nbformat.v4.new_output("display_data", {"text/plain": markup}),
        nbformat.v4.new_output("display_data", {"image/svg+xml": markup}),
        nbformat.v4.new_output("display_data", {"image/png": f'"{markup}'}),
        nbformat.v4.new_output("stream", text=markup),
        nbformat.v4.new_output("error", ename=markup, evalue="", traceback=[markup]),
    ]
    notebook = notebook_of(
        nbformat.v4.new_markdown_cell(markup), nbformat.v4.new_code_cell(markup, outputs=outputs), nbformat.v4.new_raw_cell(markup)
    )
    page = notebook_to_html(notebook, title=markup)
    assert active(body_of(page)) == []
    assert "Content-Security-Policy" in page and "default-src 'none'" in page
    assert html.escape(markup) in page.partition("<style>")[0]  # the title


def test_the_test_sees_what_is_active():
    assert sum(bool(active(markup)) for markup in HOSTILE) >= len(HOSTILE) - 2  # these two only come alive when they are cleaned carelessly


def test_what_reports_are_made_of_stays():
    table = '<table class="dataframe" border="1"><thead><tr style="text-align: right;"><th></th><th>loss</th></tr></thead></table>'
    assert sanitise(table) == table
    sound = '<audio controls><source src="data:audio/wav;base64,UklG" type="audio/wav"></audio>'
    assert sanitise(sound) == sound
    for markup in ('<a href="https://arxiv.org/abs/1406.1078">paper</a>', '<a href="#results">results</a>', "a &lt; b &amp; c"):
        assert sanitise(markup) == markup


def test_table_styles_stay_and_other_styles_go():
    markup = "<style>#T_1a_row0_col0, #T_1a th {text-align: left; background: url(x)} body {display: none}</style><p>x</p>"
    assert sanitise(markup) == "<style>#T_1a_row0_col0, #T_1a th { text-align: left; }</style><p>x</p>"


def test_links_to_notebooks_lead_to_their_reports():
    prose = "[03](03_pretraining.ipynb#4-the-update-rule), [04](../notebooks/04_finetuning.ipynb), "
    prose += "[answers](solutions/00_quickstart.ipynb), [notes](workshop/03.md)"
    page = markdown_to_html(prose)
    assert 'href="03_pretraining.html#4-the-update-rule"' in page and 'href="04_finetuning.html"' in page
    assert "answers" in page and "solutions" not in page and "notes" in page and "workshop" not in page


def test_math_becomes_mathml_but_code_and_prices_stay():
    formulas = []
    text = hide_math("The rate $\\alpha$ is `$x$`, costs $5 or $6.\n```\n$y$\n```\n$$\\sum_i x_i$$", formulas)
    assert len(formulas) == 2 and 'display="block"' in formulas[1]
    assert "`$x$`" in text and "$5 or $6" in text and "\n$y$\n" in text
    assert show_math(text, formulas).count("<math") == 2
    assert re.search(r"<math[^>]*><mrow><msub><mi>a</mi><mi>b</mi></msub></mrow></math>", markdown_to_html("S $a_b$")), "torn apart"


@pytest.mark.parametrize("latex", [r"\href{javascript:alert(1)}{x}", r"\text{<img src=x onerror=alert(1)>}", r"\frac{"])
def test_a_formula_that_holds_other_things_is_shown_as_it_was_written(latex):
    assert markdown_to_html(f"${latex}$") == f"<p><code>{html.escape(latex)}</code></p>\n" or not active(markdown_to_html(f"${latex}$"))
    assert show_math("xFORMULA7x", []) == "xFORMULA7x"


def test_a_figure_keeps_what_it_says_to_those_who_cannot_see_it():
    about = {"image/png": {"alt": 'Loss "falls" from 3 to 1, below <floor> & all'}}
    output = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0K\nGgo=\n", "text/plain": "x"}, metadata=about)
    (figure,) = re.findall(r"<img[^>]*>", notebook_to_html(notebook_of(nbformat.v4.new_code_cell("show()", outputs=[output])), title="T"))
    assert html.unescape(re.search(r'alt="([^"]*)"', figure)[1]) == about["image/png"]["alt"]
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in figure


def test_code_can_be_folded_and_pages_serve_small_screens_dark_rooms_and_paper():
    page = notebook_to_html(notebook_of(nbformat.v4.new_code_cell("x = 1")), title="T")
    assert page.count("<details") == 1 and 'type="checkbox"' in page and "<script" not in page
    for rule in ("width=device-width", "prefers-color-scheme: dark", "@media print", "max-width: 65ch", "@media (max-width: 40rem)"):
        assert rule in page, rule
    assert "<title>&lt;b&gt;</title>" in html_page("", title="<b>")
