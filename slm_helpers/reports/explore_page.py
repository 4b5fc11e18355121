"""The files of `slm explore`: explore.html, explore.json, and CSV files of rows to look at."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from slm_helpers._checks import harmless_cell, printable
from slm_helpers.analysis.copies import PHRASE, RUN, SIMILAR
from slm_helpers.analysis.explore import MIN_TEXTS, ODD, TOPIC_TEXTS, Exploration
from slm_helpers.analysis.oddities import READ_TOKENS
from slm_helpers.analysis.topics import NEIGHBOURS, TRUSTED
from slm_helpers.data.files import atomic_write
from slm_helpers.reports.html import html_page
from slm_helpers.reports.parts import rounded
from slm_helpers.reports.svg import CSS, svg_bars, svg_growth, svg_map

import pandas as pd

CSV_FILES = ("copies", "shared_phrases", "odd_rows", "personal_data", "labels")
_SHOWN_ROWS = 20  # of a table of rows
_SHOWN_CHARS = 160  # of a text


def write_exploration(found: Exploration, out: str | Path, *, show_rows: bool = False) -> dict[str, Any]:
    """Write all files.

    Args:
        found: From `explore_texts`.
        out: The folder; it is made, and files of an earlier exploration in it are replaced.
        show_rows: Show texts of the data on the page. Without it the page holds n-grams of MIN_TEXTS texts at least, and row numbers.
            The CSV files hold texts in any case.

    Returns:
        What explore.json holds.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    files = ["explore.html", "explore.json"]
    for name in CSV_FILES:
        path = out / f"{name}.csv"
        if len(found.rows.get(name, ())):
            with atomic_write(path) as stream:
                # A person opens these in a spreadsheet, which would run a cell that begins with "=".
                found.rows[name].map(lambda cell: harmless_cell(cell) if isinstance(cell, str) else cell).to_csv(stream, index=False)
            files.append(path.name)
        else:
            path.unlink(missing_ok=True)
    value = rounded(found.facts | {"files": files})
    with atomic_write(out / "explore.json") as stream:
        stream.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
    with atomic_write(out / "explore.html") as stream:
        stream.write(build_page(found, files, show_rows=show_rows))
    return value


def build_page(found: Exploration, files: list[str], *, show_rows: bool = False) -> str:
    """Return the page as HTML without scripts; all of it that comes from the data is escaped."""
    sections = [
        ("collection", "The collection", _collection(found)),
        ("languages", "Languages", _languages(found)),
        ("words", "Words", _words(found)),
        ("groups", "Groups", _groups(found)),
        ("time", "Over time", _time(found)),
        ("copies", "Copies and templates", _copies(found, show_rows)),
        ("odd", "Odd texts and damage", _odd(found, show_rows)),
        ("personal", "Likely personal data", _personal(found)),
        ("topics", "Topics and map", _topics(found, show_rows)),
        ("labels", "Labels and neighbours", _labels(found, show_rows)),
        ("drift", "Drift", _drift(found)),
        ("files", "Files and method", _method(found, files)),
    ]
    sections = [each for each in sections if each[2]]
    title = f"What is in {found.facts['data']['file']}"
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    lines = "".join(f'<li>{_t(sentence)} <a href="#{key}">More</a></li>' for key, sentence in found.headlines)
    first = f"<ol>{lines}</ol>" if lines else "<p>Nothing stands out: no copies, no damage, one language.</p>"
    body = "".join(f'<section id="{key}"><h2>{name}</h2>{content}</section>' for key, name, content in sections)
    intro = f"<p>{found.facts['texts']:,} texts, {found.facts['words']['total']:,} words. {_columns(found)}</p>"
    return html_page(
        f"<main><h1>{_t(title)}</h1>{intro}<h2>Look at this first</h2>{first}<nav>{links}</nav>{body}</main>",
        title=title,
        meta=f"<style>{CSS}</style>\n",
    )


def _t(value: Any) -> str:
    return escape(printable(" ".join(str(value).split())))


def _cut(value: Any, most: int = _SHOWN_CHARS) -> str:
    text = " ".join(printable(str(value)).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _number(value: Any) -> str:
    if isinstance(value, float):
        if value != value:
            return "–"
        return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) or hasattr(value, "item") else _t(_cut(value))


def _table(frame: pd.DataFrame, *, anchors: str = "", links: str = "") -> str:
    """Return a table; `anchors` names a column whose values n are targets #rn, and which are linked to #pn where `links` says so."""
    if not len(frame):
        return ""
    numeric = {name for name in frame if pd.api.types.is_numeric_dtype(frame[name])}
    head = "".join(f'<th class="number">{_t(name)}</th>' if name in numeric else f"<th>{_t(name)}</th>" for name in frame)
    rows = []
    for values in frame.to_dict("records"):
        cells = []
        for name, value in values.items():
            inner = _number(value)
            if name == anchors and links:
                inner = f'<a href="#p{value}">{inner}</a>'
            cells.append(f'<td class="number">{inner}</td>' if name in numeric else f"<td>{inner}</td>")
        rows.append(f'<tr id="r{values[anchors]}">{"".join(cells)}</tr>' if anchors else f"<tr>{''.join(cells)}</tr>")
    return f'<div class="output"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _percent(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return frame.assign(**{name: [f"{100 * value:.3g} %" for value in frame[name]] for name in columns if name in frame})


def _rows(found: Exploration, name: str, show_rows: bool) -> str:
    """Return the first rows of a table of rows, with texts only if asked for."""
    table = found.rows.get(name, pd.DataFrame())
    if name == "copies" and len(table):
        table = table.groupby("group", sort=False).head(3)
    table = table.head(_SHOWN_ROWS)
    hidden = [] if show_rows else ["text", "found", "phrase"]
    return _table(table.drop(columns=hidden, errors="ignore"))


def _columns(found: Exploration) -> str:
    named = [f"{ours} from column <code>{_t(_cut(theirs, 60))}</code>" for ours, theirs in found.facts["data"]["columns"].items()]
    return f"Read {', '.join(named)}." if named else ""


def _collection(found: Exploration) -> str:
    facts = found.facts
    notes = "".join(f"<li>{_t(_cut(note, 400))}</li>" for note in facts["notes"])
    classes = found.tables["length_classes"]
    about = f"Texts by number of words; the median is {facts['words']['median']:.0f} and the longest has {facts['words']['longest']:,}."
    picture = svg_bars(classes["words"], classes["texts"], about=about, unit="texts", upright=True)
    return (
        f"<p>{facts['data']['rows']:,} rows, {facts['data']['left_out']:,} left out, {facts['data']['repaired']:,} cells repaired. A text "
        f"has {facts['words']['median']:,.0f} words at the median and {facts['words']['longest']:,} at most.</p>"
        + (f"<ul>{notes}</ul>" if notes else "")
        + f"<h3>Texts by number of words</h3>{picture}{_table(_percent(found.tables['lengths'], 'share of texts that are no longer'))}"
    )


def _languages(found: Exploration) -> str:
    table = found.tables["languages"].head(12)
    about = "; ".join(f"{row.language}: {row.texts:,} texts" for row in table.itertuples())
    return (
        f"{svg_bars(table['language'], table['texts'], about=about, unit='texts')}"
        "<p>By script, function words and letters. A text without any of these, such as a title of names, is not told. Odd texts below "
        "name "
        "those in another language than most.</p>"
    )


def _words(found: Exploration) -> str:
    facts, growth = found.facts["vocabulary"], found.tables["growth"]
    told = f"{facts['distinct']:,} distinct words; {facts['once']:,} of them stand there once."
    picture = ""
    if facts["beta"] == facts["beta"] and len(growth) > 2:
        law = facts["k"] * growth["words"] ** facts["beta"]
        told += (
            f" The vocabulary grows as the power {facts['beta']:.2f} of the text (Heaps' law): twice the text has "
            f"{2 ** facts['beta']:.2f} times the words."
        )
        picture = svg_growth(growth["words"], growth["distinct"], law, about=told)
    ngrams = found.tables["ngrams"]
    wide = (
        pd.concat(
            [
                part.reset_index(drop=True)[["ngram", "texts"]].set_axis([{1: "word", 2: "pair", 3: "triple"}[n], f"texts ({n})"], axis=1)
                for n, part in ngrams.groupby("n")
            ],
            axis=1,
        )
        if len(ngrams)
        else pd.DataFrame()
    )
    wide = wide.fillna("").map(lambda cell: int(cell) if isinstance(cell, float) else cell) if len(wide) else wide
    shown = _table(wide) or f"<p>No n-gram stands in {MIN_TEXTS} texts.</p>"
    return f"<p>{_t(told)}</p>{picture}<h3>In most texts</h3><p>Function words alone are left out; copies count once.</p>{shown}"


def _groups(found: Exploration) -> str:
    if "groups" not in found.tables:
        return ""
    facts, table = found.facts["groups"], found.tables["groups"]
    about = "; ".join(f"{_cut(row[0], 40)}: {row[1]:,} texts" for row in table.head(12).itertuples(index=False))
    typical = _percent(_joined(found.tables["typical"], "group"), "share", "elsewhere")
    return (
        f"<p>By column <code>{_t(_cut(facts['column'], 60))}</code>, {facts['values']:,} values.</p>"
        f"{svg_bars([_cut(name, 34) for name in table['group']], table['texts'], about=about, unit='texts')}{_table(table)}"
        f"<h3>Typical of each group</h3><p>N-grams that more texts of the group hold than of all others (log-odds with a prior, z of 3 at "
        f"least), most typical first.</p>{_table(typical) or '<p>None.</p>'}"
    )


def _joined(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return a row a group: its n-grams with the share of its texts in brackets."""
    rows = [
        {by: name, "n-grams (share of its texts)": "; ".join(f"{row.ngram} ({row.share:.1%})" for row in part.itertuples())}
        for name, part in table.groupby("group", sort=False)
    ]
    return pd.DataFrame(rows)


def _time(found: Exploration) -> str:
    if "periods" not in found.tables:
        return ""
    table = found.tables["periods"]
    about = "; ".join(f"{row.period}: {row.texts:,} texts" for row in table.itertuples())
    return (
        f"<p>By column <code>{_t(_cut(found.facts['time']['column'], 60))}</code>; {found.facts['time']['not_understood']:,} times were "
        "not "
        f"understood.</p>{svg_bars(table['period'], table['texts'], about=about, unit='texts')}{_table(table)}"
        f"<h3>Typical of each period</h3>{_table(_joined(found.tables['typical_of_periods'], 'period')) or '<p>None.</p>'}"
    )


def _copies(found: Exploration, show_rows: bool) -> str:
    facts, phrases = found.facts["copies"], found.facts["shared_phrases"]
    kinds = pd.DataFrame(
        {
            "copies of an earlier text": ["same text", "same words", "nearly"],
            "texts": [facts[k] for k in ("same_text", "same_words", "near")],
        }
    )
    more = "".join(
        f"<p>{facts[f'{split}_in_train']:,} texts of {split} stand in train too, as they are or nearly.</p>"
        for split in ("valid", "test")
        if f"{split}_in_train" in facts
    )
    told = (
        f"<p>{phrases['texts_with_one']:,} texts hold a phrase of {PHRASE} words that {MIN_TEXTS} texts or more share without being "
        "copies; "
        f"{phrases['mostly']:,} consist of such phrases by more than "
        f"half.{' They are in shared_phrases.csv.' if phrases['phrases'] else ''}</p>"
    )
    return (
        f"{_table(kinds)}<p>Near copies share at least {SIMILAR:.0%} of their runs of {RUN} words. {facts['groups']:,} groups of copies, "
        "the "
        f"largest of {facts['largest']:,} texts; copies.csv lists "
        f"them.</p>{more}{_rows(found, 'copies', show_rows)}<h3>Templates</h3>{told}"
        + (_rows(found, "shared_phrases", show_rows) if show_rows else "")
    )


def _odd(found: Exploration, show_rows: bool) -> str:
    table, surprisal = found.tables["oddities"], found.facts["surprisal"]
    if surprisal["model"]:
        told = (
            f"The base model {surprisal['model']} read {surprisal['texts']:,} texts ({READ_TOKENS} tokens of each at most), "
            f"{surprisal['bits_per_char']:.2f} bits per character at the median."
        )
    else:
        told = "No base model read the texts: it knows English alone, or was left out."
    about = "; ".join(f"{row.reason}: {row.texts:,}" for row in table.head(15).itertuples())
    picture = svg_bars(table["reason"].head(15), table["texts"].head(15), about=about, unit="texts") if len(table) else "<p>None.</p>"
    return (
        f"<p>{found.facts['oddities']['texts']:,} texts stand out by one of these reasons at least. {_t(told)} Surprising means "
        f"{ODD:.0f} robust "
        f"standard deviations from texts of about the same length. Odd is not wrong: look at them.</p>{picture}"
        f"<h3>Most reasons first</h3>{_rows(found, 'odd_rows', show_rows)}"
    )


def _personal(found: Exploration) -> str:
    table = found.tables["personal_data"]
    table = table[table["found"] > 0]
    warning = "<p>Patterns find no names and no street addresses: an empty table does not make a text anonymous.</p>"
    if not len(table):
        return f"<p>No pattern was found.</p>{warning}"
    more = "personal_data.csv lists each with its row. Card and account numbers are counted if their check digits are right."
    return f"{_table(table)}{warning}<p>{more}</p>"


def _topics(found: Exploration, show_rows: bool) -> str:
    table, facts, places = found.tables["topics"], found.facts["topics"], found.map
    if not len(table):
        return "<p>There are too few texts, or too few words in common, for topics.</p>"
    typical = found.typical_texts[["topic", "row", *(["text"] if show_rows else [])]].drop_duplicates("row")
    names = {int(row.topic): f"{row.topic} {row.words.split(', ')[0]}" for row in table.itertuples()}
    listed = set(typical["row"]) & set(places["row"])
    group = found.facts.get("groups", {}).get("column")
    titles = [
        f"row {row.row}, topic {row.topic or 'none'}" + (f", {_cut(group, 30)}: {_cut(row.group, 40)}" if group else "")
        for row in places.itertuples()
    ]
    about = f"A map of {len(places):,} texts: near points use alike words. Topics: {'; '.join(names.values())}."
    picture = (
        svg_map(
            places[["x", "y"]].to_numpy(),
            places["topic"].tolist(),
            titles,
            names=names,
            keys=places["row"].tolist(),
            listed=listed,
            about=about,
        )
        if found.facts["map"]["method"] != "none"
        else ""
    )
    trust = found.facts["map"]["trustworthiness"]
    told = (
        f"TF-IDF, {found.facts['map']['method']}, trustworthiness {trust:.2f} (1: neighbours on the map are neighbours in all dimensions). "
        "Distances between groups of points mean little."
        if trust is not None
        else ""
    )
    return (
        f"<p>{facts['texts']:,} texts without copies (of large collections, {TOPIC_TEXTS:,} drawn at random), factorised into topics by "
        "their "
        f"words; {facts['without']:,} texts hold none of the words. A coherence above 0 means that the words of a topic stand in the "
        "same texts "
        f"more than by chance.</p>{_table(table)}<h3>Map</h3><p>{_t(told)} Points with a line in the table below are links.</p>{picture}"
        f"<h3>Texts that are most of a topic</h3>{_table(typical, anchors='row', links='p')}"
    )


def _labels(found: Exploration, show_rows: bool) -> str:
    facts = found.facts.get("labels")
    if not facts:
        return ""
    if "agreement" not in facts:
        return f"<p>{facts['classes']:,} classes on {facts['looked_at']:,} texts: too few to compare texts with their neighbours.</p>"
    told = (
        f"<p>{facts['agreement']:.0%} of the {NEIGHBOURS} nearest texts have the label of a text; by chance it were "
        f"{facts['by_chance']:.0%} "
        f"(kappa {facts['kappa']:.2f}). "
    )
    if not facts["trusted"]:
        return (
            f"{told}The words of a text say too little of its label here (kappa below {TRUSTED}): a contradiction would mean nothing.</p>"
        )
    return (
        f"{told}{facts['contradicted']:,} of {facts['looked_at']:,} labels are contradicted: at most one neighbour has it and six at "
        "least agree "
        f"on another. labels.csv lists them.</p>{_rows(found, 'labels', show_rows)}"
    )


def _drift(found: Exploration) -> str:
    facts = found.facts.get("drift")
    if not facts:
        return ""
    moved = _percent(found.tables["moved"].drop(columns="z"), "share", "before")
    shifts = found.tables["shifts"].rename(
        columns={"first": _cut(found.facts["data"]["file"], 40), "second": f"{_cut(facts['data']['file'], 40)} (second)"}
    )
    return (
        f"<p><strong>{_t(facts['verdict'])}</strong></p><p>A linear classifier learned from half of the texts to tell the files apart "
        "and was "
        "tested on the other half; an AUC of 0.5 means that it cannot. Copies stay in one half.</p>"
        f"{_table(shifts)}<h3>Words that moved</h3><p>Share of texts in the second file, and before.</p>{_table(moved) or '<p>None.</p>'}"
    )


def _method(found: Exploration, files: list[str]) -> str:
    links = "".join(f'<li><a href="{_t(name)}">{_t(name)}</a></li>' for name in files if name != "explore.html")
    return (
        f"<ul>{links}</ul><p>Row numbers count the rows of the file from 1, without its header. N-grams are counted in "
        f"{found.facts['ngrams']['texts']:,} texts and shown if {MIN_TEXTS} texts that are no copies hold them. The same file and seed "
        f"({found.facts['seed']}) give the same numbers. It took {found.facts['seconds']:.0f} s.</p>"
    )
