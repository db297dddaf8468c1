"""Split texts of any script into words, as scores and duplicates compare them."""

import unicodedata

import regex

# Letters after which a line may break without a space (Unicode Standard Annex 14): ideographs, kana, and the scripts
# of South-East Asia. They put no space between words, so each letter with its marks counts as one.
_LETTER = r"[[\p{lb=ID}\p{lb=CJ}\p{lb=SA}\p{lb=AK}\p{lb=AS}]&&\p{L}]"
_UNSPACED = rf"{_LETTER}\p{{M}}*"
# Vowel signs of Indic scripts and of vocalized Arabic and Hebrew are marks.
_WORD = regex.compile(rf"(?V1)[[\p{{L}}\p{{N}}\p{{M}}]--{_LETTER}]+|{_UNSPACED}")
_WORD_OR_SIGN = regex.compile(rf"(?V1)[[\p{{L}}\p{{N}}\p{{M}}_]--{_LETTER}]+|{_UNSPACED}|\S")
_APART = regex.compile(rf"(?V1){_UNSPACED}|[\u3000-\u303f\uff00-\uffef]")
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")


def plain(text: str) -> str:
    """Return a text in lower case and one normal form (NFC), without invisible characters."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).lower()


def words(text: str, signs: bool = False) -> list[str]:
    """Return the words of a plain text: runs of letters and digits; with ``signs``, each other sign too.

    Of ASCII texts these are the words of rouge_score; with signs, an underscore belongs to its word.
    """
    return (_WORD_OR_SIGN if signs else _WORD).findall(plain(text))


def spaced(text: str) -> str:
    """Put spaces around each letter of scripts without spaces, and around their punctuation."""
    return _APART.sub(r" \g<0> ", text)


def label_key(label: str) -> str:
    """Return what labels share that look alike: no white space, no invisible characters, one normal form (NFKC)."""
    return "".join(_INVISIBLE.sub("", unicodedata.normalize("NFKC", label)).split())
