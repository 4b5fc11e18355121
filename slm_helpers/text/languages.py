"""The language of a text by its script, its function words and its letters: no model, no download, some ten languages.

A rule, not a classifier: it says nothing ("") where it has seen no evidence, as in a title of three names.

Reference:
    Grefenstette (1995), "Comparing Two Language Identification Schemes": function words against character n-grams.
"""

import re
from collections import Counter
from collections.abc import Iterable

_READ = 400  # characters of a text that are looked at
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_MOSTLY = 0.8
_PRIOR = 1.0  # in function words that no other language has
_MIN_SHARE = 0.2  # of the letters beyond Latin ones, from which on a script decides

# Function words. One that several languages have counts less for each of them.
_WORDS = {
    "en": "the of and to a in is it you that he was for on are with as i his they be at this have from or had by not but what all were "
    "we when your can said there an each which she do how their if will about out them then so her would has him no could my than "
    "been who its did get may me our where why don't it's i'm just very up more some does should into these those because after "
    "before am us here over man war die data last most plus two first new says non ya",
    "es": "el la los las de del y en un una que es no se lo por con para su al como más pero sus le ya o fue este ha sí porque esta son "
    "entre cuando muy sin sobre también me hasta hay donde quien desde nos durante uno ni contra otros ese eso ante ellos e esto "
    "mí antes algunos qué unos yo otro él está estaba dónde cómo cuánto tiene hace puede te mi tu hola gracias usted ser era todo "
    "ella favor quiero tengo estoy voy soy puedo algo nunca bien si he todos mucho ahora necesito mis tienes eres nadie tenemos "
    "estamos hoy estar hacer siempre creo parece poco puedes vamos veces esa nosotros tus vez solo fui había hacia según mientras "
    "otra otras dos dijo vi sé",
    "fr": "le la les de des du et en un une que qui est ne pas se ce il elle au aux pour dans par sur avec plus son sa ses je nous vous "
    "tu ils elles mais ou où on lui leur cette ces sont était été être avoir a ont fait comme si tout bien très sans même aussi y "
    "c'est j'ai d'un d'une l'on qu'il n'est mon ma mes ton votre notre quand merci bonjour quel quelle s'il peu chez vers après "
    "avant moi toi suis es sommes êtes veux peux dois fais faire va vais rien jamais toujours trop ici deux voir dit alors encore "
    "pourquoi ça cela",
    "de": "der die das und in zu den ist nicht von sie es mit dem des ein eine auf für im sich auch als an er ich wir ihr so dass daß "
    "wie war hat aus bei nach nur noch oder aber einen einem einer eines um am sind wird zum zur über haben werden vor kann mir "
    "mich dich sein seine ihre ihren mein dein unser wenn man was wer wo bis durch sehr schon mehr hier dann doch keine kein bitte "
    "danke bin bist habe hast will muss soll ihn ihm ihnen uns euch alle alles nichts etwas immer jetzt heute gut ganz warum weil "
    "unter gegen ohne",
    "it": "il lo la gli le di e che non un una in è per con sono mi ha si da del della dei delle al alla nel nella ma come io tu lei lui "
    "noi voi loro questo questa anche più se ci o era chi quando dove perché molto cosa suo sua ho hai abbiamo hanno essere stato "
    "grazie ciao qui così ancora tutto dal dalla degli voglio posso devo sto sta vai va niente mai sempre poi qualcosa bene oggi "
    "ogni mio mia tuo stata fatto",
    "pt": "o os as de do da dos das e em um uma que não é se por com para seu sua ao à como mais mas foi ele ela eles você eu nós no na "
    "nos nas ou quando muito sem sobre também já está são há onde quem isso este esta ser ter tem pelo pela até bem aqui obrigado "
    "olá estou vou posso tenho quero nunca sempre algo nada agora hoje meu minha fazer aos pelos",
    "nl": "de het een en van in is dat op te zijn met voor niet aan er om hij zij ze ook als maar bij nog uit door over dan naar heeft "
    "hebben wordt werd ik je we wij jullie u haar hun dit die wat waar wie hoe geen meer kan mijn jouw onze ons was waren deze "
    "veel dank",
}
# Letters, endings and openings that speak for a language, with their weight.
_SIGNS = (
    ("es", 1.5, re.compile(r"[ñ¿¡]|\w(?:ción|ciones)\b")),
    ("es", 0.4, re.compile(r"[áíóú]|\w(?:mente|ado|ada|ando|iendo|amos|emos)\b|\bll")),
    ("de", 1.5, re.compile(r"ß|\w{3}(?:ungen|keit|lich|isch)\b")),
    ("de", 0.4, re.compile(r"[äöü]|\bsch\w|cht\b|\w{2}ung\b")),
    ("de", 0.2, re.compile(r"\w(?:en|et)\b")),
    ("fr", 1.5, re.compile(r"[œùûî]|\b[dljnmst]['’](?=[aeéèêhiouyà])|\bqu['’]")),
    ("fr", 0.4, re.compile(r"[èêçàâ]|\w(?:eux|euse|ez|ée|és|ées)\b")),
    ("pt", 1.5, re.compile(r"[ãõ]|\w(?:ção|ções)\b")),
    ("it", 0.5, re.compile(r"[àèìòù]\b|\w(?:zione|zioni|ato|ata|tta|tti|gli\w*)\b")),
    ("en", 0.4, re.compile(r"\w(?:ing|tion|ed|ly|ness)\b|\w['’]s\b|\bwh\w|th\w")),
    ("nl", 0.4, re.compile(r"ij[kn]?\b|aa[lnrt]|\w(?:heid|lijk)\b")),
)
# Scripts that one language, or nearly one, is written in. Japanese has kana among its Chinese signs.
_SCRIPTS = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af\u1100-\u11ff]"),
    "zh": re.compile(r"[\u3400-\u9fff\uf900-\ufaff]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "ar": re.compile(r"[\u0600-\u06ff\u0750-\u077f]"),
    "he": re.compile(r"[\u0590-\u05ff]"),
    "el": re.compile(r"[\u0370-\u03ff]"),
    "hi": re.compile(r"[\u0900-\u097f]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
}
_LETTER = re.compile(r"[^\W\d_]")
_UKRAINIAN = re.compile(r"[іїєґ]")
NAMES = {
    **{"en": "English", "es": "Spanish", "fr": "French", "de": "German", "it": "Italian", "pt": "Portuguese", "nl": "Dutch"},
    **{"zh": "Chinese", "ja": "Japanese", "ko": "Korean", "ru": "Russian", "uk": "Ukrainian", "ar": "Arabic", "he": "Hebrew"},
    **{"el": "Greek", "hi": "Hindi", "th": "Thai", "": "not told"},
}


def _weights() -> dict[str, tuple[tuple[str, float], ...]]:
    having: dict[str, list[str]] = {}
    for language, words in _WORDS.items():
        for word in dict.fromkeys(words.split()):
            having.setdefault(word, []).append(language)
    return {word: tuple((language, 1.0 / len(languages)) for language in languages) for word, languages in having.items()}


_WEIGHTS = _weights()
FUNCTION_WORDS = frozenset(_WEIGHTS)  # of all these languages


def detect_language(text: str, *, usual: str = "") -> str:
    """Return the code of the language of a text ("en", "zh" ...), or "" where nothing speaks for one.

    With `usual`, the language of the texts around it, another one needs more evidence: two function words rather than one.

    Example:
        >>> detect_language("Where is the station?"), detect_language("¿Dónde está la estación?"), detect_language("车站在哪里？")
        ('en', 'es', 'zh')
        >>> detect_language("Oslo 2024")
        ''
    """
    text = text[:_READ].lower()
    if not text.isascii():
        script = _script(text)
        if script:
            return script
    scores: Counter[str] = Counter()
    for word in _WORD.findall(text.replace("’", "'")):
        for language, weight in _WEIGHTS.get(word, ()):
            scores[language] += weight
    for language, weight, pattern in _SIGNS if not _is_clear(scores) else ():
        found = len(pattern.findall(text))
        if found:
            scores[language] += weight * found
    if scores and usual in _WORDS:
        scores[usual] += _PRIOR
    ranked = scores.most_common(2)
    if not ranked or ranked[0][1] < 0.5 or (len(ranked) > 1 and ranked[1][1] >= ranked[0][1]):
        return ""
    return ranked[0][0]


def detect_languages(texts: Iterable[str]) -> list[str]:
    """Return the language of each text of a collection; one that four fifths are in is the usual one."""
    texts = list(texts)
    found = [detect_language(text) for text in texts]
    counts = Counter(language for language in found if language)
    usual, count = next(iter(counts.most_common(1)), ("", 0))
    if count < _MOSTLY * counts.total():
        return found
    pairs = zip(texts, found, strict=True)
    return [language if language in ("", usual) else detect_language(text, usual=usual) for text, language in pairs]


def _is_clear(scores: Counter[str]) -> bool:
    """Whether function words alone decide: many of them, and three times as many as for any other language."""
    (_, first), (_, second) = (*scores.most_common(2), ("", 0.0), ("", 0.0))[:2]
    return first >= 4 and first >= 3 * second


def _script(text: str) -> str:
    """Return the language of the script that a text is mostly written in, "" for Latin letters."""
    num_letters = len(_LETTER.findall(text))
    counts = {language: len(pattern.findall(text)) for language, pattern in _SCRIPTS.items()}
    language = max(counts, key=lambda name: counts[name])
    if counts[language] < max(1.0, _MIN_SHARE * num_letters):
        return ""
    if language == "zh" and counts["ja"] > 0.05 * counts["zh"]:
        return "ja"
    return "uk" if language == "ru" and _UKRAINIAN.search(text) else language
