"""Public data sets behind `load_dataset`: read from a local mirror, else fetched with Hugging Face `datasets`, then cached.

The mirror is the folder named by SLM_DATA_DIR with one folder a set (`sst2/train.tsv`, `imdb/train_a.tsv.gz`); a workshop
puts it on a stick. Without it, sets with a hub address are downloaded by the extra `public` and kept under the cache
folder (SLM_CACHE_DIR, else ~/.cache/slm_helpers) in the task's own columns. Nothing is downloaded unless it is named.
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_helpers.data.audio import read_recordings
from slm_helpers.data.decoding import read_text
from slm_helpers.data.files import atomic_write, read_rows, sha256_of
from slm_helpers.data.schema import SPLITS, TASK_COLUMNS, check_tags
from slm_helpers.data.splits import make_splits

import pandas as pd

Rows = Iterable[dict[str, Any]]


@dataclass(frozen=True)
class PublicSet:
    """Where a public set lies and how its rows become task columns.

    `files` names glob patterns per split inside the set's folder. A set without a valid part gets a tenth of train (2,000
    rows at most), dealt by text; a set with one part only is dealt in `shares`. `hub` is (repository, config or None).
    """

    task: str
    about: str
    files: dict[str, tuple[str, ...]]
    columns: dict[str, str] = field(default_factory=dict)  # ours: theirs
    rows: Callable[..., Rows] | None = None  # from the rows of a file, and of the one beside it
    beside: tuple[str, str] | None = None  # what in a file's name to replace by what to get the name of the file beside it
    folder: str | None = None
    hub: tuple[str, str | None] | None = None
    hub_columns: dict[str, str] = field(default_factory=dict)
    hub_splits: dict[str, str] = field(default_factory=lambda: {"train": "train", "valid": "validation", "test": "test"})
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)  # of train, valid and test in a set with one part


def load_public(name: str) -> pd.DataFrame:
    """Return a public set as a DataFrame with its task's columns and `split`.

    Raises:
        FileNotFoundError: If it lies neither in the mirror nor in the cache and cannot be fetched.
    """
    public = PUBLIC[name]
    folder = _mirror_folder(public.folder or name)
    if folder is not None:
        frame = pd.DataFrame(list(_mirror_rows(public, folder)))
    else:
        if not _cached(name).exists():
            download(name)
        frame = _read_cache(name)
    if "tags" in frame:
        check_tags(frame, name=name)
    return _complete_splits(frame, public.shares)


def download(name: str) -> Path:
    """Fetch a public set with Hugging Face `datasets` into the cache; returns the file written."""
    public = PUBLIC.get(name)
    if public is None:
        raise ValueError(f"{name!r} is no public set. Known: {', '.join(PUBLIC)}.")
    missing = f"{name} is not in the local mirror (SLM_DATA_DIR={os.environ.get('SLM_DATA_DIR', 'not set')}) nor in the cache"
    if public.hub is None:
        raise FileNotFoundError(f"{missing}, and it has no online source. Point SLM_DATA_DIR at a folder that holds {name}/.")
    try:
        import datasets
    except ImportError as error:
        raise FileNotFoundError(
            f"{missing}. Point SLM_DATA_DIR at a folder that holds {name}/, or install the online route in the clone of the repository: pip install --editable '.[public]'."
        ) from error
    rows = []
    for split, theirs in public.hub_splits.items():
        try:
            part = datasets.load_dataset(public.hub[0], public.hub[1], split=theirs)
        except ValueError:
            continue  # sets without a validation part; _complete_splits deals one
        except (OSError, RuntimeError) as error:  # RuntimeError: sets that datasets 4 no longer reads
            raise FileNotFoundError(f"{missing}, and {public.hub[0]} could not be fetched ({error}).") from error
        for row in part:
            made = {ours: _hub_cell(row, ours, public.hub_columns.get(ours, ours), part.features) for ours in TASK_COLUMNS[public.task]}
            rows.append(made | {"split": split})
    if not rows:
        raise FileNotFoundError(f"{missing}, and {public.hub[0]} has none of the parts {', '.join(public.hub_splits.values())}.")
    with atomic_write(_cached(name)) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    with atomic_write(_hash_file(name)) as file:
        file.write(f"{sha256_of(_cached(name))}\n")
    return _cached(name)


def _read_cache(name: str) -> pd.DataFrame:
    """Return the rows of a cached set, if its file is the one that `download` wrote."""
    path = _cached(name)
    recorded = _hash_file(name).read_text(encoding="utf-8").strip() if _hash_file(name).is_file() else "none"
    if sha256_of(path) != recorded:
        raise ValueError(
            f"{path}: the file is not the one that was downloaded (SHA-256 {sha256_of(path)[:12]}..., recorded {recorded[:12]}). "
            f"Fetch it again: slm download {name}."
        )
    frame = pd.DataFrame([dict(row) for row in read_rows(path, trusted=True)])
    lacking = [column for column in (*TASK_COLUMNS[PUBLIC[name].task], "split") if column not in frame]
    if lacking:
        raise ValueError(f"{path}: the column {lacking[0]!r} is missing. Fetch the set again: slm download {name}.")
    return frame


def _hub_cell(row: dict[str, Any], ours: str, theirs: str, features: Mapping[str, Any]) -> Any:
    if theirs not in row and "answers" in row:  # SQuAD's form: lists of equally good answers; empty if there is none
        values = row["answers"][{"answer": "text", "answer_start": "answer_start"}[ours]]
        return values[0] if values else {"answer": "", "answer_start": -1}[ours]
    value = row[theirs]
    if hasattr(features.get(theirs), "int2str") and value >= 0:
        return features[theirs].int2str(value)
    return str(value) if ours == "label" else value


def _mirror_folder(folder: str) -> Path | None:
    mirror = os.environ.get("SLM_DATA_DIR")
    if not mirror:
        return None
    if not Path(mirror).is_dir():
        raise FileNotFoundError(f"SLM_DATA_DIR is {mirror!r}, but there is no such folder.")
    return Path(mirror) / folder if (Path(mirror) / folder).is_dir() else None


def _cached(name: str) -> Path:
    cache = os.environ.get("SLM_CACHE_DIR")
    try:
        folder = Path(cache) if cache else Path.home() / ".cache" / "slm_helpers"
    except RuntimeError as error:  # no HOME, and no entry for the user
        raise ValueError("There is no home folder to keep downloaded sets in. Set SLM_CACHE_DIR to a folder.") from error
    return folder / name / "all.jsonl"


def _hash_file(name: str) -> Path:
    return _cached(name).with_name("all.sha256")


def _mirror_rows(public: PublicSet, folder: Path) -> Iterator[dict[str, Any]]:
    for split, patterns in public.files.items():
        for pattern in patterns:
            paths = sorted(folder.glob(pattern))
            if not paths:
                raise FileNotFoundError(f"{folder / pattern}: there is no such file in the mirror. Copy the set again.")
            for path in paths:
                rows = _source_rows(path, public)
                if public.beside:
                    rows = public.rows(rows, _source_rows(path.with_name(path.name.replace(*public.beside)), public))
                elif public.rows:
                    rows = public.rows(rows)
                for row in rows:
                    made = {ours: row[public.columns.get(ours, ours)] for ours in _kept(public, row)} | {"split": split}
                    if "student" in made:
                        made["student"] = f"{split}-{made['student']}"  # the files number their students from 1 anew
                    yield made


_EXTRA = (
    "intent", "source_language", "target_language", "stars", "fine", "kind", "story", "speaker", "id", "phenomenon", "paradigm"
)  # fmt: skip


def _kept(public: PublicSet, row: dict[str, Any]) -> list[str]:
    return [*TASK_COLUMNS[public.task], *(name for name in _EXTRA if name in row)]


def _source_rows(path: Path, public: PublicSet) -> Rows:
    if public.task == "language_model":
        return [{"text": read_text(path), "file": path.name}]
    if public.task == "listen":
        return read_recordings(path)
    if public.task == "tag" and path.name.removesuffix(".gz").endswith(".tsv") and public.columns == {}:
        return _conll_rows(path)
    return read_rows(path, trusted=True)


def _conll_rows(path: Path) -> Iterator[dict[str, str]]:
    """Two columns with a tab, an empty line between sentences; tokens keep inner oddities but never a space."""
    for block in read_text(path).split("\n\n"):
        pairs = [line.split("\t") for line in block.split("\n") if "\t" in line]
        if pairs:
            yield {"tokens": " ".join(t.replace(" ", "_") for t, *_ in pairs), "tags": " ".join(p[-1].strip() for p in pairs)}


def _complete_splits(frame: pd.DataFrame, shares: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> pd.DataFrame:
    """Deal the splits a set lacks, always the same way: by a key of the row, with a fixed seed."""
    # Questions of fact have an empty context, which would make one key of all.
    key = next(
        name
        for name in ("text", "tokens", "source", "context", "question", "student", "turns", "id", "good")
        if name in frame and frame[name].astype(bool).any()
    )
    keys = frame[key].astype(str).str.slice(0, 2000)
    exact = key in ("student", "id")  # a name such as student-12 must keep its number
    present = set(frame["split"])
    if present == {"all"} and len(frame) == 1:
        frame["split"] = "train"  # one long text; whoever uses it cuts it
    elif present == {"train"} or present == {"all"}:
        frame["split"] = make_splits(keys, shares=shares, exact=exact, seed=42)
    elif "valid" not in present and "train" in present:
        train = frame["split"] == "train"
        share = min(0.1, 2000 / keys[train].nunique())
        frame.loc[train, "split"] = make_splits(keys[train], shares=(1 - share, share, 0.0), exact=exact, seed=42)
    return frame.reset_index(drop=True)


def _articles(rows: Rows) -> Iterator[dict[str, str]]:
    """Articles separated by an empty line, one row each."""
    for row in rows:
        for article in row["text"].split("\n\n"):
            if article.strip():
                yield {"text": article.strip()}


def _lines(rows: Rows) -> Iterator[dict[str, str]]:
    for row in rows:
        yield from ({"text": line.strip()} for line in row["text"].split("\n") if line.strip())


def _stories(rows: Rows) -> Iterator[dict[str, str]]:
    for row in rows:
        yield {"text": "\n\n".join(row["sections"])}


def _json_rows(rows: Rows) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file that was read as one text."""
    return (json.loads(line) for row in rows for line in row["text"].splitlines())


def _simple_stories(rows: Rows) -> Iterator[dict[str, str]]:
    """TinyStories without marks between stories: one begins where a paragraph opens as nearly all of them do."""
    story: list[str] = []
    for row in rows:
        text = row["text"].replace("â€œ", "“").replace("â€™", "’").replace("â€”", "—").replace("â€", "”")  # read as cp1252 somewhere
        for paragraph in filter(None, map(str.strip, text.split("\n\n"))):
            if story and re.match(r"(Once upon a time|Once there was|One day|One \w+ day|There once was)", paragraph):
                yield {"text": "\n\n".join(story)}
                story = []
            story.append(paragraph)
        if story:
            yield {"text": "\n\n".join(story)}
            story = []


def _reading_levels(rows: Rows) -> Iterator[dict[str, str]]:
    """OneStopEnglish: each article at three levels, each a text of its own."""
    for row in _json_rows(rows):
        yield from ({"text": row[level].strip()} for level in ("elementary", "intermediate", "advanced") if row[level].strip())


def _news_text(rows: Rows) -> Iterator[dict[str, str]]:
    """AG News: title and description joined; its published part has them joined already."""
    for row in rows:
        yield {"label": row["label"], "text": row.get("text") or f"{row['title']}. {row['description']}"}


def _title_and_text(rows: Rows) -> Iterator[dict[str, str]]:
    for row in rows:
        yield {"label": row["label"], "text": row["title"] + "\n" + row["text"]}


def _without_stray_header(rows: Rows) -> Iterator[dict[str, str]]:
    """Financial PhraseBank as published has a second header line ("result", "content") among its rows."""
    return (row for row in rows if row["label"] != "result")


def _with_languages(to: str) -> Callable[[Rows], Iterator[dict[str, str]]]:
    def rename(rows: Rows) -> Iterator[dict[str, str]]:
        for row in rows:
            yield {"source": row["en"], "target": row[to], "source_language": "en", "target_language": to}

    return rename


def _slots(rows: Rows) -> Iterator[dict[str, str]]:
    for row in rows:
        yield {"tokens": row["tokens"], "slots": row["slots"], "intent": row["intent"]}


def _whole_works(rows: Rows) -> Iterator[dict[str, str]]:
    """WNUT-17 as mirrored has lost its I-creative-work: each word of a title begins a work of its own. The words of one are joined."""
    rows = list(rows)
    lost = not any("I-creative-work" in row["tags"] for row in rows)
    for row in rows:
        yield row | {"tags": re.sub("(?<=B-creative-work )B-creative-work", "I-creative-work", row["tags"])} if lost else row


def _attempts(rows: Rows) -> Iterator[dict[str, Any]]:
    """ASSISTments: one row a student becomes one row an attempt."""
    for number, row in enumerate(rows, 1):
        for step, (skill, correct) in enumerate(zip(row["skills"].split(), row["correct"].split(), strict=True)):
            yield {"student": number, "step": step, "skill": skill, "correct": int(correct)}


def _meaning(rows: Rows) -> Iterator[dict[str, str]]:
    """E2E: name[Alimentum], area[city centre] becomes name: Alimentum | area: city centre."""
    for row in rows:
        facts = [part.strip().rstrip("]").split("[", 1) for part in row["mr"].split("],")]
        yield {"source": " | ".join(f"{name.strip()}: {value.strip()}" for name, value in facts), "target": row["ref"]}


def _triples(rows: Rows) -> Iterator[dict[str, str]]:
    for row in rows:
        source = " | ".join(" : ".join(triple) for triple in row["triples"]).replace("_", " ")
        yield from ({"source": source, "target": text, "kind": row["category"]} for text in row["texts"])


def _turns(rows: Rows) -> Iterator[dict[str, Any]]:
    for row in rows:
        turns = [turn if isinstance(turn, list) else [("A", "B")[i % 2], turn] for i, turn in enumerate(row["turns"])]
        yield {"turns": [{"speaker": speaker, "text": text.strip()} for speaker, text in turns]}


def _untokenised_turns(rows: Rows) -> Iterator[dict[str, Any]]:
    """Dialogues whose source stands with spaces before punctuation and clitics: the spaces are taken out."""
    for row in _turns(rows):
        for turn in row["turns"]:
            turn["text"] = re.sub(r" (?=[.,!?;:)]|'(?:s|m|re|ve|ll|d)\b|n't\b)", "", turn["text"]).replace("( ", "(")
        yield row


def _customer_turns(rows: Rows) -> Iterator[dict[str, Any]]:
    """MultiDoGO: what one customer says in one chat, in order; what the agent says is not in the set."""
    for _, group in itertools.groupby(rows, key=lambda row: row["conversation"]):
        yield {"turns": [{"speaker": "customer", "text": row["utterance"]} for row in group if row["utterance"].strip()]}


def _minimal_pairs(rows: Rows) -> Iterator[dict[str, str]]:
    """BLiMP, as its authors count: s-selection belongs to argument structure."""
    for row in rows:
        phenomenon = {"s-selection": "argument_structure"}.get(row["phenomenon"], row["phenomenon"])
        yield {"good": row["sentence_good"], "bad": row["sentence_bad"], "phenomenon": phenomenon, "paradigm": row["UID"]}


def _trivia(rows: Rows) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {"context": "", "question": row["question"], "answer": row["answer"], "answer_start": -1}


_DOMAINS = {  # of the services that dialogues about one thing alone have in train
    "Banks", "Buses", "Calendar", "Events", "Flights", "Homes", "Hotels", "Media", "Movies", "Music", "RentalCars", "Restaurants",
    "RideSharing", "Services",
}  # fmt: skip


def _opening_turns(rows: Rows) -> Iterator[dict[str, Any]]:
    """Schema-Guided Dialogue without its annotation: what a user says first, and the domain of the one service that the dialogue is about.

    Left out are dialogues about several domains, whose first turn may be about any of them, and domains that train lacks.
    """
    for row in rows:
        domains = {service.split("_")[0] for service in row["services"]}
        opening = next((text.strip() for speaker, text in row["turns"] if speaker == "USER"), "")
        if opening and len(domains) == 1 and domains <= _DOMAINS:
            yield {"text": opening, "label": domains.pop(), "id": row["id"]}


def _tale_questions(rows: Rows, stories: Rows) -> Iterator[dict[str, Any]]:
    """FairytaleQA questions with the sections they were asked about, answered as it is written there.

    Left out are questions whose answer does not stand in these sections: a third, most of them worded anew (kind implicit).
    """
    sections = {row["story"]: row["sections"] for row in stories}
    for row in rows:
        context = " ".join(sections[row["story"]][number - 1] for number in row["sections"])
        words = re.findall(r"\w+", row["answer"])
        found = re.search(r"\W+".join(rf"\b{re.escape(word)}\b" for word in words), context, re.IGNORECASE) if words else None
        if found:
            about = {"question": row["question"], "kind": row["attribute"], "story": row["story"]}
            yield about | {"context": context, "answer": found[0], "answer_start": found.start()}


def _facts(rows: Rows) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {"context": "", "question": row["question"], "answer": row["answers"][0] if row["answers"] else "", "answer_start": -1}


def _country_rows(rows: Rows) -> Iterator[dict[str, Any]]:
    for row in rows:
        for relation in ("capital", "region", "currency", "languages"):
            if row[relation]:
                yield {
                    "context": "",
                    "question": f"{relation} of {row['country']}",
                    "answer": row[relation].split(",")[0],
                    "answer_start": -1,
                }


def _parts(ending: str = "tsv", **names: str) -> dict[str, tuple[str, ...]]:
    return {split: (f"{names.get(split, split)}.{ending}*",) for split in SPLITS if names.get(split, split)}


_EN = "en.txt*"
PUBLIC: dict[str, PublicSet] = {
    # Text to pretrain on; a book, an article or a review is one row.
    "wikipedia_en": PublicSet("language_model", "Wikipedia articles", {"train": ("part_*.txt.gz",)}, rows=_articles,
                              hub=("wikimedia/wikipedia", "20231101.simple")),
    "story_books": PublicSet("language_model", "194 public-domain story books", {"train": ("*.txt*",)}),
    "childrens_books": PublicSet("language_model", "15 public-domain children's books", {"train": ("*.txt*",)}),
    "tinystories_sample": PublicSet("language_model", "stories in simple English", {"train": ("*.txt",)}, rows=_articles,
                                    hub=("roneneldan/TinyStories", None)),
    "fairytaleqa_stories": PublicSet("language_model", "fairy tales", {"train": ("train_stories.jsonl.gz",), "valid": ("val_stories.jsonl",)},
                                     rows=lambda rows: _stories(_json_rows(rows)),
                                     folder="fairytaleqa"),
    "story_books_2": PublicSet("language_model", "144 more public-domain story books", {"train": ("*.txt*",)}, shares=(0.94, 0.03, 0.03)),
    # Trained on are only the books under CC BY 4.0; those to score are CC BY-NC-SA 4.0.
    "textbooks": PublicSet("language_model", "textbooks", {
        "train": ("college_success*.txt*", "life_liberty*.txt*", "physics.txt*", "principles_of_economics*.txt*"),
        "valid": ("introduction_to_sociology*.txt*",), "test": ("introduction_to_philosophy*.txt*",)}),
    "tinystories_more": PublicSet("language_model", "more stories in simple English", {"train": ("train_more.txt*",)}, rows=_simple_stories,
                                  shares=(0.9, 0.05, 0.05)),
    "onestopenglish": PublicSet("language_model", "news articles at three reading levels", {"train": ("train.jsonl*",)}, rows=_reading_levels,
                                shares=(1.0, 0.0, 0.0)),
    "abc_news": PublicSet("language_model", "rural and science news", {"train": ("*.txt*",)}, rows=_lines),
    "imdb_unlabelled": PublicSet("language_model", "film reviews", {"train": ("unlabelled_*.txt.gz",)}, rows=_lines, folder="imdb"),
    "wikitext2": PublicSet("language_model", "WikiText-2, evaluation text", {"test": ("valid.txt",)},
                           hub=("Salesforce/wikitext", "wikitext-2-v1"), hub_splits={"test": "validation"}),
    "ptb": PublicSet("language_model", "Penn Treebank, evaluation text", {"test": ("ptb.valid.txt",)}),
    "tiny_shakespeare": PublicSet("language_model", "Shakespeare's plays, one text", {"all": ("input.txt",)}),
    # Classes
    "sst2": PublicSet("classify", "film review sentences, two classes", _parts(valid="dev"), hub=("SetFit/sst2", None),
                      hub_columns={"label": "label_text"}),
    "sst5": PublicSet("classify", "film review sentences, five classes", _parts(valid="dev"), hub=("SetFit/sst5", None)),
    "rt_polarity": PublicSet("classify", "film review sentences (overlaps sst2)", {"all": ("all.tsv",)},
                             hub=("cornell-movie-review-data/rotten_tomatoes", None)),
    "imdb": PublicSet("classify", "film reviews, two classes", {"train": ("train_*.tsv.gz",), "test": ("test.tsv.gz",)},
                      hub=("stanfordnlp/imdb", None)),
    "tweet_sentiment": PublicSet("classify", "tweets, three classes", _parts(valid="dev"), hub=("cardiffnlp/tweet_eval", "sentiment")),
    "airline_sentiment": PublicSet("classify", "tweets to airlines, three classes", _parts(valid="")),
    "financial_phrasebank": PublicSet("classify", "sentences on firms, three classes", _parts(valid=""), rows=_without_stray_header,
                                      hub=("takala/financial_phrasebank", "sentences_50agree"), hub_columns={"text": "sentence"}),
    "ag_news": PublicSet("classify", "news in four topics", _parts(train="train_part", valid=""), rows=_news_text, hub=("fancyzhx/ag_news", None)),
    "bbc_news": PublicSet("classify", "news in five topics", _parts("jsonl", valid=""), rows=_title_and_text, hub=("SetFit/bbc-news", None),
                          hub_columns={"label": "label_text"}),
    "dbpedia14": PublicSet("classify", "14 kinds of things", _parts(train="train_part", valid="", test="test_part"),
                           hub=("fancyzhx/dbpedia_14", None), hub_columns={"text": "content"}),
    "sms_spam": PublicSet("classify", "text messages, ham and spam", _parts(valid=""), hub=("ucirvine/sms_spam", None),
                          hub_columns={"text": "sms"}),
    "trec_questions": PublicSet("classify", "questions in six types", _parts(valid=""), columns={"text": "question", "label": "coarse"}),
    "toutiao_news_zh": PublicSet("classify", "Chinese news titles", _parts(valid="", test="dev")),
    "banking77": PublicSet("classify", "bank customers' requests, 77 intents", _parts(valid=""), columns={"label": "intent"},
                           hub=("mteb/banking77", None), hub_columns={"label": "label_text"}),
    "clinc150": PublicSet("classify", "assistant requests, 150 intents and out of scope (oos)",
                          {"train": ("train.tsv", "oos_train.tsv"), "valid": ("val.tsv", "oos_val.tsv"), "test": ("test.tsv", "oos_test.tsv")},
                          columns={"label": "intent"}, hub=("clinc/clinc_oos", "plus"), hub_columns={"label": "intent"}),
    "bitext_customer_service": PublicSet("classify", "customer requests, 27 intents", _parts(valid="dev"),
                                         columns={"text": "utterance", "label": "intent"}),
    "schema_guided_openings": PublicSet("classify", "first turns of task dialogues, 14 domains", _parts("jsonl", valid="", test="dev"),
                                        rows=_opening_turns, folder="schema_guided_dialogue"),
    # Tags. CoNLL-2003 and 2002 come without their test part: the development part stands in as test.
    "conll2003_en": PublicSet("tag", "Reuters news, PER ORG LOC MISC", _parts(valid="", test="dev")),
    "conll2002_es": PublicSet("tag", "Spanish news, PER ORG LOC MISC", _parts(valid="", test="dev")),
    "wnut17": PublicSet("tag", "web text, six kinds of rare entities", _parts(valid="dev"), rows=_whole_works),
    "snips": PublicSet("tag", "assistant commands, 7 intents, slots", _parts(), rows=_slots, columns={"tags": "slots"}),
    "atis": PublicSet("tag", "flight requests, intents, slots", _parts(), rows=_slots, columns={"tags": "slots"}),
    # Sounds
    "spoken_digits": PublicSet("listen", "spoken digits, six speakers", {"train": ("train.npz",), "test": ("test.npz",)}),
    # Pairs
    **{f"tatoeba_en_{to}": PublicSet("translate", f"English to {to} sentences", _parts(), rows=_with_languages(to)) for to in ("es", "fr", "de", "zh")},
    "e2e_nlg": PublicSet("translate", "restaurant facts to text", {"train": ("devset.tsv",), "test": ("testset.tsv",)}, rows=_meaning),
    "webnlg": PublicSet("translate", "triples to text", _parts("jsonl", valid="dev"), rows=_triples),
    "squad_question_generation": PublicSet("translate", "sentence to question", {"all": ("dev.tsv*",)},
                                           columns={"source": "sentence", "target": "question"}),
    # Questions
    "xquad_en": PublicSet("answer", "passages with questions", {"all": ("xquad.en.jsonl",)}, folder="xquad", hub=("google/xquad", "xquad.en"),
                          hub_splits={"all": "validation"}),
    "xquad_es": PublicSet("answer", "Spanish passages with questions", {"all": ("xquad.es.jsonl",)}, folder="xquad"),
    "webquestions": PublicSet("answer", "questions of fact, no passage", _parts("jsonl", train="trainmodel", valid="val", test="devtest"), rows=_facts),
    "fairytaleqa": PublicSet("answer", "fairy tales with questions answered in them", _parts("jsonl", train="train_questions", valid="", test="val_questions"),
                             rows=_tale_questions, beside=("questions", "stories")),
    "open_trivia_qa": PublicSet("answer", "trivia questions, no passage", _parts("jsonl", test=""), rows=_trivia),
    "country_facts": PublicSet("answer", "facts of countries", {"all": ("countries.tsv",)}, rows=_country_rows),
    # Grammar
    "blimp": PublicSet("minimal_pairs", "pairs of a grammatical and an ungrammatical sentence, 67 paradigms", {"test": ("pairs.jsonl*",)},
                       rows=_minimal_pairs),
    # Dialogues and learners
    "dailydialog": PublicSet("dialogue", "everyday dialogues", {"all": ("validation.jsonl",)}, rows=_turns),
    "schema_guided_dialogue": PublicSet("dialogue", "task dialogues", _parts("jsonl", valid="dev", test=""), rows=_turns),
    **{name: PublicSet("dialogue", about, {part: (f"{name}_{part}.jsonl*",) for part in ("train", "valid")}, folder="dialogues",
                       rows=_untokenised_turns if name == "multiwoz21" else _turns)
       for name, about in (("self_dialogue", "dialogues on films, music and sports, one writer for both sides"),
                           ("taskmaster4", "coffee orders, one writer for both sides"), ("multiwoz21", "tourist information, two writers"),
                           ("topical_chat", "talk about facts from the news"), ("chatterbot_corpus", "questions and answers by topic"))},
    "multidogo_customers": PublicSet("dialogue", "what customers say in service chats", _parts(test=""), rows=_customer_turns, folder="multidogo"),
    "assistments2009": PublicSet("trace", "learners' attempts", _parts(valid=""), rows=_attempts),
}  # fmt: skip
