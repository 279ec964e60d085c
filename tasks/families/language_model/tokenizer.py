"""Train a small multilingual tokenizer from the texts of a data set, without any download."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from esci_tournament.registry.errors import CandidateError

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
TRAINING_TEXTS = 200_000
_ACCENTS = {"á": "a", "é": "e", "í": "i", "ó": "o", "ú": "u", "ü": "u"}
# One run of one script is a word: Japanese has no spaces, but its scripts mostly change where a word ends.
_RUNS = Regex(
    r"\p{Han}+|[\p{Katakana}ー]+|\p{Hiragana}+|\p{N}+|[^\s\p{Han}\p{Katakana}ー\p{Hiragana}\p{N}\p{P}\p{S}]+|."
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a byte-pair tokenizer, the same for the same set of texts in any order.

    Text is NFKC-normalised and lower-cased, the accents of Spanish vowels are dropped (shoppers often leave them out;
    Japanese voicing marks stay), and words are cut where the script changes. Pieces carry no word-border marks, so
    that "mouse" is one piece in "wireless mouse" and in "wirelessmouse". Only the most frequent characters are known,
    half as many as the vocabulary has pieces; all others become [UNK].

    Args:
        texts: the corpus; of more than 200,000 distinct texts, an evenly spread part is read.
        vocabulary: pieces at most, special tokens included.

    Returns:
        The tokenizer with BERT's special tokens around a text and a pair.

    Raises:
        CandidateError: if the texts hold no character.
    """
    chosen = _sample(sorted(set(texts)), TRAINING_TEXTS)
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS["unk_token"], fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), *(normalizers.Replace(*pair) for pair in _ACCENTS.items())]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(_RUNS, behavior="isolated")]
    )
    alphabet = _alphabet(chosen, (vocabulary - len(SPECIAL_TOKENS)) // 2)
    if not alphabet:
        raise CandidateError("no tokenizer can be trained: queries and products to fit on hold no text")
    tokenizer.train_from_iterator(
        chosen,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=list(SPECIAL_TOKENS.values()),
            initial_alphabet=alphabet,  # chosen here, because the trainer breaks ties at random
            limit_alphabet=len(alphabet),
            show_progress=False,
        ),
        length=len(chosen),
    )
    cls, sep = (tokenizer.token_to_id(SPECIAL_TOKENS[name]) for name in ("cls_token", "sep_token"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    return tokenizer


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return the tokenizer as a Hugging Face one, so that it can be saved beside its model."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    )


def _sample(texts: Sequence[str], count: int) -> Sequence[str]:
    step = max(1, -(-len(texts) // count))
    return texts[::step]


def _alphabet(texts: Sequence[str], size: int) -> list[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(unicodedata.normalize("NFKC", text).lower())
    for accented in (*_ACCENTS, *(character for character in counts if character.isspace())):
        counts.pop(accented, None)
    if counts:
        counts.update(dict.fromkeys(_ACCENTS.values(), 1))
    return sorted(counts, key=lambda character: (-counts[character], character))[:size]
