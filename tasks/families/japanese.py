"""Tokenizers of Japanese BERTs: words as MeCab finds them, then the pieces of a vocabulary.

transformers has them in Python alone. Here MeCab's words become text with spaces between them, which a fast tokenizer
with the same vocabulary reads. fugashi and a dictionary are needed for that, the extra `japanese`. Of a checkpoint no
more is followed than the name of a dictionary among those in :data:`DICTIONARIES`: options of MeCab may name files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.foreign import read_json_file, shown

DICTIONARIES = ("unidic_lite", "ipadic", "unidic")  # packages of these names
_WORDS = "japanese_words"  # key in tokenizer_config.json of a tokenizer that was opened here
_LONGEST_CONFIG, _LONGEST_WORD = 4_000_000, 100  # bytes; characters, as transformers has it
_SPECIAL = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}


def japanese_settings(place: Path) -> dict[str, Any] | None:
    """Return the settings of a Japanese BERT's tokenizer; None for another tokenizer, or one with a tokenizer.json.

    Args:
        place: A folder with the configs and the tokenizer's files of a checkpoint.

    Returns:
        The content of tokenizer_config.json.
    """
    read = {
        name: read_json_file(place / name, _LONGEST_CONFIG) if (place / name).is_file() else {}
        for name in ("config.json", "tokenizer_config.json")
    }
    kinds = {str(content.get("tokenizer_class")).removesuffix("Fast") for content in read.values()}
    own = "BertJapaneseTokenizer" in kinds and not (place / "tokenizer.json").exists()
    return read["tokenizer_config.json"] if own else None


def open_japanese(place: Path, checkpoint: str, settings: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer that reads MeCab's words, see :func:`words_of`, as transformers' own one does.

    Args:
        place: A folder with the tokenizer's files.
        checkpoint: As messages name it.
        settings: As :func:`japanese_settings`.

    Returns:
        The tokenizer.

    Raises:
        SpecError: If it finds words or pieces in another way, asks for options of MeCab or another dictionary, lacks
            its vocabulary, or if fugashi or the dictionary is not installed.
    """
    words, pieces = settings.get("word_tokenizer_type", "basic"), settings.get("subword_tokenizer_type", "wordpiece")
    mecab = settings.get("mecab_kwargs") or {}
    if words != "mecab" or pieces not in ("wordpiece", "character") or not isinstance(mecab, dict):
        raise SpecError(
            f"checkpoint {checkpoint}: its tokenizer finds words by {shown(words)} and pieces by {shown(pieces)}; of "
            "Japanese ones those are read that find words by mecab and pieces by wordpiece or character. Name another "
            "checkpoint, such as tohoku-nlp/bert-base-japanese-v3"
        )
    if mecab.get("mecab_option"):
        raise SpecError(
            f"checkpoint {checkpoint}: its tokenizer_config.json gives MeCab options ({shown(mecab['mecab_option'])}), "
            f"which may name files; remove mecab_option and name a dictionary as mecab_dic: {', '.join(DICTIONARIES)}"
        )
    told = {
        "dictionary": mecab.get("mecab_dic", DICTIONARIES[0]),
        "normalize": bool(mecab.get("normalize_text", True)),
        "lower": bool(settings.get("do_lower_case", False)),
    }
    _splitter(told, checkpoint)
    try:
        lines = (place / "vocab.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise SpecError(f"checkpoint {checkpoint}: its vocab.txt is not there or no UTF-8") from error
    vocabulary = {line.rstrip("\n"): number for number, line in enumerate(lines)}
    named = {kind: str(settings.get(f"{kind}_token", token)) for kind, token in _SPECIAL.items()}
    if lost := [token for kind, token in named.items() if kind != "mask" and token not in vocabulary]:
        raise SpecError(f"checkpoint {checkpoint}: its vocab.txt lacks {shown(lost[0])}")
    model = models.WordPiece(vocabulary, unk_token=named["unk"], max_input_chars_per_word=_LONGEST_WORD)
    made = Tokenizer(model)
    split: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.WhitespaceSplit()]
    if pieces == "character":
        split.append(pre_tokenizers.Split(Regex("."), "isolated"))
    made.pre_tokenizer = pre_tokenizers.Sequence(split)
    ends = [(named[kind], vocabulary[named[kind]]) for kind in ("cls", "sep")]
    made.post_processor = processors.BertProcessing(ends[1], ends[0])
    special = {f"{kind}_token": token for kind, token in named.items() if token in vocabulary}
    return PreTrainedTokenizerFast(tokenizer_object=made, **special, **{_WORDS: told})


def words_of(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], str] | None:
    """Return what puts spaces between the words of a text before a tokenizer reads it.

    Args:
        tokenizer: As :func:`open_japanese` makes it, also after it was saved; or any other.

    Returns:
        A function of a text, safe in threads; None for tokenizers that need none.

    Raises:
        SpecError: If fugashi or the dictionary is not installed.
    """
    told = tokenizer.init_kwargs.get(_WORDS)
    return _splitter(told, str(tokenizer.name_or_path)) if isinstance(told, dict) else None


def _splitter(told: dict[str, Any], checkpoint: str) -> Callable[[str], str]:
    name = told.get("dictionary")
    if name not in DICTIONARIES:
        raise SpecError(
            f"checkpoint {checkpoint}: its tokenizer asks for the dictionary {shown(name)}; name one of "
            f"{', '.join(DICTIONARIES)} as mecab_dic in tokenizer_config.json"
        )
    try:
        from transformers.models.bert_japanese.tokenization_bert_japanese import MecabTokenizer

        mecab = MecabTokenizer(
            do_lower_case=bool(told.get("lower")), normalize_text=bool(told.get("normalize", True)), mecab_dic=name
        )
    except (ImportError, RuntimeError) as error:  # a dictionary that is not there is a RuntimeError of MeCab
        package = "" if name == DICTIONARIES[0] else f", and pip install {name} for its dictionary"
        raise SpecError(
            f"checkpoint {checkpoint}: its tokenizer needs MeCab; install the extra: "
            f"pip install 'esci-tournament[japanese]'{package}"
        ) from error
    lock = threading.Lock()  # MeCab keeps its state in the tagger

    def spaced(text: str) -> str:
        with lock:
            return " ".join(mecab.tokenize(text))

    return spaced
