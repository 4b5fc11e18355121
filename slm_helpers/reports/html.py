"""Executed notebooks as HTML: one file each, readable with the network off, on a telephone, in the dark and on paper.

Outputs and prose of a notebook can hold whatever its data held. They are sanitised (bleach), figures are images, and a
Content-Security-Policy forbids scripts and requests, so that a report shows everything and runs nothing.
"""

import html
import re
import xml.etree.ElementTree as ElementTree
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import bleach
import tinycss2
from bleach.css_sanitizer import CSSSanitizer

POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_CSS = """
:root { --text: #1a1a1a; --paper: #fff; --soft: #f4f4f4; --line: #ccc; --link: #0b4f9c; --bad: #a00000; }
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper); }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
a { color: var(--link); } .failed { color: var(--bad); } .number { text-align: right; white-space: nowrap; }
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1.5rem; padding: 0.5rem 0; border-bottom: 1px solid var(--line); }
nav:last-child { border: 0; border-top: 1px solid var(--line); margin-top: 2rem; }
.prose { max-width: 65ch; overflow-wrap: break-word; } .prose pre, .prose table { max-width: 100%; }
.anchor-link { display: none; }
pre { font: 0.85rem/1.4 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: break-word; margin: 0.3rem 0; tab-size: 4; }
.code { margin: 0.8rem 0 0.3rem; } .code summary { color: var(--link); cursor: pointer; font-size: 0.8rem; }
.code pre, .prose pre { background: var(--soft); padding: 0.6rem 0.8rem; border-radius: 4px; }
#show-code:not(:checked) ~ main .code { display: none; }
.output, .prose { overflow-x: auto; } .error { color: var(--bad); }
img { background: #fff; height: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.5rem 0; }
td p { margin: 0.2rem 0; } nav a { overflow-wrap: anywhere; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
math { overflow-x: auto; max-width: 100%; } blockquote { border-left: 3px solid var(--line); margin-left: 0; padding-left: 1rem; }
@media (max-width: 40rem) {
  img { max-width: max(100%, 40rem); }
  .cards thead { display: none; } .cards tr, .cards td { display: block; border: 0; padding: 0.1rem 0; text-align: left; }
  .cards tr { border-bottom: 1px solid var(--line); padding: 0.7rem 0; } .cards td[data-name]::before { content: attr(data-name) ": "; }
}
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --paper: #161616; --soft: #242424; --line: #555; --link: #8ab8f5; --bad: #ff8c8c; }
}
@media print {
  @page { margin: 16mm; }
  :root { --text: #000; --paper: #fff; --soft: #f4f4f4; --line: #ccc; --link: #000; }
  body { font-size: 10pt; max-width: none; padding: 0; } .prose { max-width: none; }
  nav, .switch, #show-code, .code summary { display: none; } details::details-content { content-visibility: visible; height: auto; }
  pre { font-size: 8pt; } .output, .prose { overflow: visible; } table { font-size: 8pt; }
  h1, h2, h3 { break-after: avoid; } img, tr { break-inside: avoid; } img { max-width: 100%; max-height: 11cm; width: auto; }
}
"""

_TAGS = frozenset(
    [
        *("a", "abbr", "audio", "b", "blockquote", "br", "caption", "center", "code", "col", "colgroup", "dd", "del", "details"),
        *("div", "dl", "dt", "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li"),
        *("mark", "ol", "p", "pre", "q", "s", "samp", "small", "source", "span", "strong", "sub", "summary", "sup", "table"),
        *("tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul"),
    ]
)
_PLAIN_ATTRIBUTES = frozenset(
    [
        *("alt", "align", "class", "colspan", "rowspan", "scope", "title", "id", "style", "border", "width", "height", "dir"),
        *("lang", "start", "controls", "type", "open"),
    ]
)
_MATH_TAGS = frozenset(
    [
        *("math", "mrow", "mi", "mo", "mn", "mtext", "ms", "mspace", "msub", "msup", "msubsup", "mfrac", "msqrt", "mroot", "mover"),
        *("munder", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose", "mfenced", "mmultiscripts"),
        *("mprescripts", "none", "semantics"),
    ]
)
_CSS_CLEANER = CSSSanitizer()


def html_page(body: str, *, title: str, navigation: str = "", meta: str = "") -> str:
    """Return a whole HTML file around a body that is safe already; `title` is plain text."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
{meta}<title>{html.escape(title)}</title>
<style>{_CSS}{_code_css()}</style>
</head>
<body>
{navigation}{body}
{navigation}</body>
</html>
"""


def notebook_to_html(notebook: Any, *, title: str, navigation: str = "", meta: str = "") -> str:
    """Return a notebook (an nbformat node) as one HTML file: figures inside, formulas as MathML, code that can be folded away.

    Code stands in one `details` element a cell, and the switch above the first cell hides all of it, on paper too.
    """
    switch = '<input type="checkbox" id="show-code" checked> <label class="switch" for="show-code">Show code</label>\n'
    cells = [_prose(cell.source) if cell.cell_type == "markdown" else _code_cell(cell) for cell in notebook.cells if cell.source.strip()]
    return html_page(switch + "<main>\n" + "\n".join(cells) + "\n</main>", title=title, navigation=navigation, meta=meta)


def markdown_to_html(markdown: str) -> str:
    """Return Markdown with formulas as HTML that runs nothing."""
    from nbconvert.filters import markdown2html

    formulas: list[str] = []
    return show_math(_link_reports(sanitise(markdown2html(hide_math(markdown, formulas)))), formulas)


def sanitise(markup: str) -> str:
    """Return HTML reduced to text, tables, lists, images and sounds that are inside it, and links; nothing in it can run.

    Example:
        >>> sanitise('<b onclick="x()">bold</b><script>x()</script><a href="javascript:x()">link</a>')
        '<b>bold</b><a>link</a>'
    """
    styles = "".join(_table_style(css) for css in re.findall(r"<style[^>]*>(.*?)</style>", markup, re.DOTALL | re.IGNORECASE))
    # bleach drops these tags but would show what stands between them.
    markup = re.sub(r"<(script|style|title|noscript)\b.*?</\1\s*>", "", markup, flags=re.DOTALL | re.IGNORECASE)
    clean = bleach.clean(
        markup,
        tags=_TAGS,
        attributes=_allowed,
        protocols={"http", "https", "mailto", "data"},
        css_sanitizer=_CSS_CLEANER,
        strip=True,
    )
    return f"<style>{styles}</style>{clean}" if styles else clean


def hide_math(markdown: str, formulas: list[str]) -> str:
    """Replace $...$ and $$...$$ by marks and append their MathML to `formulas`; code and prices are left alone.

    Markdown renderers tear MathML apart, so it comes back after them, by `show_math`.
    """

    def hide(display: str) -> Callable[[re.Match], str]:
        def mark(match: re.Match) -> str:
            formulas.append(_mathml(match.group(1), display))
            return f"xFORMULA{len(formulas) - 1}x"

        return mark

    parts = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.DOTALL)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"\$\$(.+?)\$\$", hide("block"), parts[i], flags=re.DOTALL)
        parts[i] = re.sub(r"(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\w)", hide("inline"), parts[i])
    return "".join(parts)


def show_math(page: str, formulas: list[str]) -> str:
    """Put the MathML that `hide_math` took out back in place of its marks; browsers draw it by themselves."""
    known = {str(number): formula for number, formula in enumerate(formulas)}
    return re.sub(r"xFORMULA(\d+)x", lambda match: known.get(match.group(1), match.group()), page)


def _prose(markdown: str) -> str:
    return f'<div class="prose">{markdown_to_html(markdown)}</div>'


def _code_cell(cell: Any) -> str:
    from nbconvert.filters import Highlight2HTML

    if cell.cell_type != "code":
        return f"<pre>{html.escape(cell.source)}</pre>"
    code = Highlight2HTML(pygments_lexer="python")(cell.source)
    outputs = "\n".join(f'<div class="output">{_output(output)}</div>' for output in cell.outputs)
    return f'<details class="code" open><summary>Code</summary>{code}</details>\n{outputs}'


def _output(output: Any) -> str:
    """Return an output in the richest of its forms that is known here."""
    if output.output_type == "stream":
        return _text(output.text)
    if output.output_type == "error":
        return f'<div class="error">{_text(chr(10).join(output.traceback) or output.ename)}</div>'
    data, about = output.data, output.get("metadata", {})
    for kind in ("image/svg+xml", "image/png", "image/jpeg"):
        if kind in data:
            return _image(kind, data[kind], about.get(kind, about).get("alt", ""))
    if "text/html" in data:
        return _link_reports(sanitise(data["text/html"]))
    if "text/markdown" in data:
        return _prose(data["text/markdown"])
    return _text(data.get("text/plain", ""))


def _image(kind: str, content: str, alt: str) -> str:
    """Return a figure as an image: what an SVG holds cannot run inside one."""
    encoded = b64encode(content.encode()).decode() if kind == "image/svg+xml" else re.sub(r"[^A-Za-z0-9+/=]", "", content)
    return f'<img alt="{html.escape(alt)}" src="data:{kind};base64,{encoded}">'


def _text(text: str) -> str:
    from nbconvert.filters import strip_ansi

    return f"<pre>{html.escape(strip_ansi(text))}</pre>"


def _allowed(tag: str, name: str, value: str) -> bool:
    """Decide on an attribute: links lead to the web or to a file beside the report, images and sounds stand inside it."""
    value = "".join(html.unescape(value).split())
    if name == "href":
        return tag == "a" and re.match(r"(https?:|mailto:|#)|[^:]*$", value, re.IGNORECASE) is not None
    if name == "src":
        kinds = {"img": r"image/(png|jpeg|gif|webp|svg\+xml)", "audio": r"audio/\w+", "source": r"audio/\w+"}
        return tag in kinds and re.match(f"data:{kinds[tag]};base64,", value) is not None
    return name in _PLAIN_ATTRIBUTES


def _table_style(css: str) -> str:
    """Return the rules of a pandas Styler, which name cells by ids like #T_1a2b_row0_col0; all other CSS is left out."""
    rules = []
    for rule in tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True):
        selector = tinycss2.serialize(rule.prelude) if rule.type == "qualified-rule" else ""
        if re.fullmatch(r"(\s*#T_\w+[\w\s.:()-]*,?)+", selector):
            rules.append(f"{selector.strip()} {{ {_CSS_CLEANER.sanitize_css(tinycss2.serialize(rule.content))} }}")
    return "\n".join(rules).replace("<", "")


def _mathml(latex: str, display: str) -> str:
    """Return a formula as MathML; its LaTeX, escaped, if the converter does not know it or lets other tags through."""
    from latex2mathml.converter import convert

    try:
        markup = convert(latex.strip(), display=display)
        elements = list(ElementTree.fromstring(markup).iter())
    except Exception:  # the converter has a kind of error for each of LaTeX's, without a common one
        return f"<code>{html.escape(latex)}</code>"
    names = {element.tag.rpartition("}")[2] for element in elements}
    attributes = {name for element in elements for name in element.attrib}
    if names <= _MATH_TAGS and not any(name.startswith("on") or "href" in name or name == "src" for name in attributes):
        return markup
    return f"<code>{html.escape(latex)}</code>"


def _link_reports(markup: str) -> str:
    """Let links to other notebooks lead to their reports; solutions and leader's notes have none, so these links become text."""
    markup = re.sub(r'<a href="[^"]*(?:solutions/[^"]*\.ipynb|workshop/\d\d\.md)[^"]*"[^>]*>(.*?)</a>', r"\1", markup, flags=re.DOTALL)
    markup = markup.replace('href="../README.md#notebooks"', 'href="index.html"')
    return re.sub(r'href="(?:\.\./|\./|notebooks/)*(\d\d_\w+)\.ipynb([^"]*)"', r'href="\1.html\2"', markup)


def _code_css() -> str:
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight") for style in ("default", "github-dark"))
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{ {dark} }}"
