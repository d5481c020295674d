"""The answer normalisers of the VQA challenge, as lmms-eval and LLaVA's evaluators apply them.

Golden strings: "Yes." is "yes", "two" is "2", "None" is "0", "A red ball" is "red ball", "10,000"
is "10000", "3.5" stays, "top-left" is "top left", "U.S.A." is "usa".
"""

import re

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = {"a", "an", "the"}
_NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
)
NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
DIGIT_COMMA_DIGIT = re.compile(r"(?<=\d),+(?=\d)")
FULL_STOP = re.compile(r"\.(?!\d)")
MOST_FULL_STOPS = 32
"""The published scripts hand a flag to the argument that limits replacements; its value is 32."""

# The contractions that the challenge's table repairs: what was lost, then the words it was lost
# from. The table is not regular ("she'd" and capital "Im" are not repaired, "somebody'd" loses its
# apostrophe); numbers are only comparable if ours is as it is.
_STEMS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were "
    "wo would",
    "'ve": "could might must not should they we what where who would you",
    "n't've": "could had might should would",
    "'d": "he how it someone something there they where who you",
    "'d've": "he it she somebody someone something there they we who you",
    "'ll": "how it somebody someone something they what who why you",
    "'s": "he how somebody someone that there what when where who why",
    "'re": "there they what why you",
}


def _contractions() -> dict[str, str]:
    table = {"maam": "ma'am", "oclock": "o'clock", "yall": "y'all", "twas": "'twas"}
    table["somebody'd"] = "somebodyd"
    table |= dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at")
    table |= dict.fromkeys(("yall'll", "y'allll"), "y'all'll")
    table |= dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've")
    for ending, words in _STEMS.items():
        for word in words.split():
            right = word + ending
            if right.count("'") == 1:
                table[right.replace("'", "")] = right
            else:  # of two apostrophes one was left out
                first, second = right.index("'"), right.rindex("'")
                table[right[:first] + right[first + 1 :]] = right
                table[right[:second] + right[second + 1 :]] = right
    return table


CONTRACTIONS = _contractions()


def normalize_answer(answer: str) -> str:
    """Return an answer in the form in which TextVQA, OK-VQA and VizWiz compare it (EvalAI's processor).

    Commas and question marks are dropped and ``'s`` set apart before `normalize_vqa`'s rules, which
    see "red,blue" as two words where this sees one.
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalize_vqa(text)


def normalize_vqa(answer: str) -> str:
    """Return an answer in the form in which VQAv2's script compares it.

    Punctuation is deleted or becomes a space, full stops vanish but in numbers, number words become
    digits, articles go, lost apostrophes of contractions come back.
    """
    return _digits_and_articles(_without_punctuation(clean_spaces(answer)))


def clean_spaces(answer: str) -> str:
    """Return an answer without spaces at its ends, line breaks and tabs inside as spaces."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    """Delete a mark that touches a space, put a space for one inside a word, and drop full stops
    but in numbers."""
    result = text
    delete_all = DIGIT_COMMA_DIGIT.search(text) is not None
    for mark in PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if touches_space or delete_all else " ")
    return FULL_STOP.sub("", result, count=MOST_FULL_STOPS)


def _digits_and_articles(text: str) -> str:
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
