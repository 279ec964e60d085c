"""The files of a Hugging Face checkpoint, looked at before any library opens them: what they name, and how much.

Nothing here imports torch or transformers. :func:`inspect` is called in a child process (`registry.border`), because a
tokenizer's file is opened for it. :func:`vetted` gives libraries a folder that holds what was looked at and nothing
else, so that no index, config or adapter leads them to another file.
"""

from __future__ import annotations

import json
import math
import re
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.foreign import read_json, shown
from esci_tournament.tasks.families.patterns import repeated_items, trouble_with

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm.model",
    "tokenizer.model",
)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
MARKS = ("config.json", WEIGHTS, INDEX, "adapter_config.json", "modules.json")  # a folder with one of them is a model
# Endings of weights in other formats, and what a message says of them
_FORMATS = {
    ".gguf": "GGUF is made for inference in llama.cpp, and is mostly quantised",
    ".onnx": "ONNX is a graph for inference, which is not trained further here",
    ".h5": "those of TensorFlow are not read",
    ".msgpack": "those of Flax are not read",
}
_POINTER = b"version https://git-lfs.github.com/spec/"

# Characters of texts that a tokenizer is tried on, and seconds of computing that it may take; the shorter ones stop
# what takes the third power of the length before it takes minutes
_PROBES = ((250, 0.5), (1_000, 0.5), (4_000, 1.0), (10_000, 3.0))
_CONFIGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_OTHERS = ("modules.json", "adapter_config.json", "sentence_bert_config.json", "generation_config.json")
_TEXTS = (*TOKENIZER_FILES[1:], "merges.txt")
_LONGEST_CONFIG, _LONGEST_TOKENIZER, _LONGEST_HEADER = 4_000_000, 100_000_000, 32_000_000  # bytes
ENCODER_HALVES = ("t5", "mt5", "umt5")  # encoders and decoders whose encoder can be opened alone
_MOST_PATTERNS, _MOST_SHARDS, _MOST_LAYERS, _LARGEST_SIZE = 100, 1_000, 512, 100_000_000
LAYER_KEYS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer", "encoder_layers")
_WIDTH_KEYS = ("hidden_size", "dim", "d_model", "vocab_size")
# Keys whose value a library opens as a file; other keys with a path, such as _name_or_path, are remarks
_REFERENCES = re.compile(r"(?:_file|_files|_path)$|^path$|^(?:transformers_weights|filename)$")
_REMARKS = ("special_tokens_map_file", "_name_or_path", "name_or_path", "base_model_name_or_path")
_LAYER_NUMBER = re.compile(r"\.(\d{1,6})\.")


def inspect(folder: str) -> dict[str, Any]:
    """Look at everything in a checkpoint folder that a library would be led by, and try its tokenizer.

    Args:
        folder: The folder, as a message names it.

    Returns:
        `model_type` of its config, and `parameters`, the number of values in its weights.

    Raises:
        SpecError: If a file is missing, is no safetensors or JSON, is too large, refers to a file outside the folder
            or to a pickle, declares layers or sizes that the weights do not have, or holds a tokenizer that takes too
            long.
    """
    place = Path(folder)
    check_names(folder, [file.name for file in place.iterdir()])
    check_fetched(place)
    config = _config(place)
    tensors: dict[str, list[int]] = {}
    for file in weight_files(place):
        tensors |= tensors_of(file, folder)
    _check_decoder(folder, config, tensors)
    _check_sizes(folder, config, tensors)
    for name in _CONFIGS + _OTHERS:
        if (place / name).exists():
            read_config(place, name)
    tokenizer = read_tokenizer(place)
    if tokenizer is not None:
        _try_tokenizer(folder, inside(place, TOKENIZER_FILES[0]), patterns_of(tokenizer))
    else:
        for name in TOKENIZER_FILES:
            if name.endswith(".model") and (place / name).exists():
                _try_sentencepiece(folder, inside(place, name))
    return {"model_type": config.get("model_type"), "parameters": sum(map(math.prod, tensors.values()))}


def check_names(checkpoint: str, files: list[str]) -> None:
    """Refuse a checkpoint by the names of its files.

    Args:
        checkpoint: As a message names it.
        files: Names of its files, those in subfolders with a slash.

    Raises:
        SpecError: If config, weights or tokenizer are missing, the weights are there as a pickle only, or it is an
            adapter to another model.
    """
    top = [name for name in files if "/" not in name]
    missing = [] if "config.json" in top else ["config.json"]
    if "adapter_config.json" in top:
        raise SpecError(
            f"checkpoint {checkpoint} holds an adapter (adapter_config.json), which names another model's weights; "
            "merge it into the model and save that: "
            'AutoPeftModel.from_pretrained("ADAPTER").merge_and_unload().save_pretrained("MERGED")'
        )
    if missing and "modules.json" in top:
        raise SpecError(
            f"checkpoint {checkpoint} is a model of sentence-transformers that keeps its encoder in a folder of its "
            "own, which modules.json names, such as 0_Transformer; name that folder"
        )
    if not {WEIGHTS, INDEX} & set(top):
        pickles = sorted(
            name for name in top
            if name.endswith(PICKLES) and not name.endswith(tuple(_FORMATS)) and "training_args" not in name
        )  # fmt: skip
        if pickles and "config.json" in top:
            raise SpecError(
                f"checkpoint {checkpoint} has its weights only as {pickles[0]}; that is or may be a pickle, which runs "
                "code when it is read, so it is never opened. Convert it to model.safetensors on a machine you trust: "
                'AutoModel.from_pretrained("OLD").save_pretrained("NEW"), and the tokenizer likewise'
            )
        _check_formats(checkpoint, files)
        missing.append(WEIGHTS)
    if not set(TOKENIZER_FILES) & set(top):
        if not missing and "tokenizer_config.json" in top:
            raise SpecError(
                f"checkpoint {checkpoint}: its tokenizer has no vocabulary (no tokenizer.json, vocab.txt or *.model "
                "beside tokenizer_config.json); copy it from where the model comes from. A tokenizer that is code "
                "alone, such as CANINE's and ByT5's, is not read"
            )
        missing.append("tokenizer.json")
    if missing:
        raise SpecError(f"checkpoint {checkpoint} is no Hugging Face checkpoint: it has no {', no '.join(missing)}")


def _check_formats(checkpoint: str, files: list[str]) -> None:
    """Refuse a checkpoint without weights under the names that are read, but with others."""
    others = sorted(name for name in files if name.endswith(".safetensors") and "/" not in name)
    if others and re.search(r"-\d{5}-of-\d{5}\.", others[0]):
        raise SpecError(
            f"checkpoint {checkpoint} has parts of its weights, such as {shown(others[0])}, and no {INDEX}, which says "
            "what is in them; copy it from where they come from"
        )
    if others:
        raise SpecError(
            f"checkpoint {checkpoint} has its weights as {shown(others[0])}; they are read from {WEIGHTS} or from what "
            f"{INDEX} lists: rename the file if it is the whole model"
        )
    for ending, why in _FORMATS.items():
        if found := sorted(name for name in files if name.endswith(ending)):
            raise SpecError(
                f"checkpoint {checkpoint} has its weights only as {shown(found[0])}; {why}. Name the original model, "
                f"with {WEIGHTS}"
            )


def check_fetched(folder: Path) -> None:
    """Refuse files that Git has not fetched: a pointer of Git LFS stands in their place.

    Args:
        folder: The checkpoint.

    Raises:
        SpecError: If there are such files.
    """
    fast = folder / TOKENIZER_FILES[0]
    names = [*_CONFIGS, *_OTHERS, TOKENIZER_FILES[0], *(() if fast.exists() else _TEXTS), INDEX]  # what will be read
    names += sorted(file.name for file in folder.glob("model*.safetensors"))
    pointers = [name for name in dict.fromkeys(names) if _is_pointer(folder / name)]
    if pointers:
        raise SpecError(
            f"checkpoint {folder}: {', '.join(map(shown, pointers[:3]))} is a pointer of Git LFS, a few lines of text "
            "in place of the file, because the folder was cloned without git-lfs; fetch the files there with: "
            "git lfs install && git lfs pull"
        )


def _is_pointer(file: Path) -> bool:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return False
        with file.open("rb") as content:
            return content.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def inside(folder: Path, name: str) -> Path:
    """Return where a file of a checkpoint really is.

    Args:
        folder: The checkpoint.
        name: A plain name; it may be a link to a file in the folder, or in the blobs of the hub's cache.

    Returns:
        The path, without links.

    Raises:
        SpecError: If the name is a path, leads out of the folder, or is no regular file.
    """
    if PurePosixPath(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
        raise SpecError(f"checkpoint {folder}: {shown(name)} is no name of a file in its folder")
    root = folder.resolve()
    cache = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    try:
        found = (root / name).resolve(strict=True)
        regular = stat.S_ISREG(found.stat().st_mode)
    except (OSError, RuntimeError) as error:
        raise SpecError(f"checkpoint {folder}: {shown(name)} cannot be read") from error
    if not regular or not (found.is_relative_to(root) or found.is_relative_to(cache)):
        raise SpecError(f"checkpoint {folder}: {shown(name)} leads out of its folder, or is no file")
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights, each of them safetensors in its folder.

    Args:
        folder: The checkpoint.

    Returns:
        Paths without links.

    Raises:
        SpecError: If the index cannot be read, or names anything else.
    """
    names = _weight_names(folder)
    lost = [name for name in names if "/" not in name and not (folder / name).exists()]
    if lost and not (folder / lost[0]).is_symlink():
        raise SpecError(
            f"checkpoint {folder}: {len(lost)} of the {len(names)} files of weights that {INDEX} lists cannot be "
            f"found: {', '.join(map(shown, lost[:3]))}; copy them into the folder"
        )
    return [inside(folder, name) for name in names]


def _weight_names(folder: Path) -> list[str]:
    if (folder / WEIGHTS).exists() or (folder / WEIGHTS).is_symlink():
        return [WEIGHTS]
    index = read_object(folder, INDEX, _LONGEST_CONFIG * 8)
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards or not isinstance(index.setdefault("metadata", {}), dict):
        raise SpecError(f"checkpoint {folder}: {INDEX} has no weight_map")
    names = list(dict.fromkeys(map(str, shards.values())))
    for name in names:
        if not name.endswith(".safetensors"):
            raise SpecError(
                f"checkpoint {folder}: {INDEX} names {shown(name)}; weights are read from *.safetensors alone, since "
                "other files are or may be pickles, which run code when they are read"
            )
    if len(names) > _MOST_SHARDS:
        raise SpecError(f"checkpoint {folder}: {INDEX} names {len(names):,} files; {_MOST_SHARDS:,} are allowed")
    return names


def tensors_of(file: Path, checkpoint: str) -> dict[str, list[int]]:
    """Read the header of a safetensors file.

    Args:
        file: The file.
        checkpoint: As a message names it.

    Returns:
        Name of the tensor -> its shape.

    Raises:
        SpecError: If the file is cut, or its header is too long or not one.
    """
    try:
        return _shapes(file)
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise SpecError(
            f"checkpoint {checkpoint}: {file.name} is cut or no safetensors file ({plain_words(error)})"
        ) from error


def _shapes(file: Path) -> dict[str, list[int]]:
    size = file.stat().st_size
    with file.open("rb") as source:
        (length,) = struct.unpack("<Q", source.read(8))
        if length > min(_LONGEST_HEADER, size - 8):
            raise ValueError(f"its header would have {length:,} bytes")
        header = read_json(source.read(length).decode(), _LONGEST_HEADER)
    ends, shapes = [0], dict[str, list[int]]()
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        shapes[name], (start, end) = [int(one) for one in facts["shape"]], facts["data_offsets"]
        if not 0 <= start <= end or any(one < 0 or one > 2**40 for one in shapes[name]):
            raise ValueError("a tensor has no place in it")
        ends.append(end)
    if max(ends) != size - 8 - length:
        raise ValueError(f"it has {size - 8 - length:,} bytes of {max(ends):,}")
    return shapes


def read_object(folder: Path, name: str, longest: int = _LONGEST_CONFIG) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint.

    Args:
        folder: The checkpoint.
        name: Name of the file.
        longest: Bytes that it may have.

    Returns:
        The object.

    Raises:
        SpecError: If it is too long or deep, or no JSON object.
    """
    content = _json_of(folder, name, longest)
    if not isinstance(content, dict):
        raise SpecError(f"checkpoint {folder}: {name} is no JSON object")
    return content


def _json_of(folder: Path, name: str, longest: int = _LONGEST_CONFIG) -> Any:
    file = inside(folder, name)
    try:
        if (size := file.stat().st_size) > longest:
            raise ValueError(f"it has {size:,} bytes; {longest:,} are allowed")
        return read_json(file.read_text(encoding="utf-8"), longest)
    except (OSError, ValueError) as error:
        raise SpecError(f"checkpoint {folder}: {name} is no JSON object ({plain_words(error)})") from error


def read_config(folder: Path, name: str) -> Any:
    """Return the content of a JSON file that configures a checkpoint, without what would lead a library elsewhere.

    Args:
        folder: The checkpoint.
        name: Name of the file.

    Returns:
        The content; remarks such as the path under which it was saved are left out.

    Raises:
        SpecError: If it cannot be read, or a key of it names a file that is not in the folder.
    """
    content = _json_of(folder, name) if name == "modules.json" else read_object(folder, name)
    _check_references(folder, name, content)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if not _REFERENCES.search(key)}
    return content


def _check_references(folder: Path, name: str, content: Any) -> None:
    if isinstance(content, list):
        for one in content:
            _check_references(folder, name, one)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if isinstance(value, dict | list):
            _check_references(folder, name, value)
        if not _REFERENCES.search(key) or key in _REMARKS:
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and one and not _stays(one):
                raise SpecError(
                    f"checkpoint {folder}: {name} names {shown(one)} as {shown(key)}; it may name safetensors, JSON "
                    "and text files in its own folder only"
                )


def _stays(name: str) -> bool:
    """Tell whether a reference stays in the folder and is no pickle."""
    path = PurePosixPath(name)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in name or "://" in name or name.startswith("~")
    return not leaves and not name.endswith(PICKLES)


def read_tokenizer(folder: Path) -> dict[str, Any] | None:
    """Return the content of tokenizer.json, None when there is none, and check its regular expressions.

    Args:
        folder: The checkpoint.

    Returns:
        The content.

    Raises:
        SpecError: If it cannot be read, or one of its expressions may take a time that grows without bound.
    """
    if not (folder / TOKENIZER_FILES[0]).exists():
        return None
    content = read_object(folder, TOKENIZER_FILES[0], _LONGEST_TOKENIZER)
    found = patterns_of(content)
    if len(found) > _MOST_PATTERNS:
        raise SpecError(f"checkpoint {folder}: tokenizer.json has {len(found)} expressions; 100 are allowed")
    for pattern in found:
        if trouble := trouble_with(pattern):
            raise SpecError(
                f"checkpoint {folder}: tokenizer.json has the regular expression {shown(pattern)}, whose matching may "
                f"take forever ({trouble}); write it with repetitions of single characters or classes only"
            )
    return content


def patterns_of(tokenizer: Any) -> list[str]:
    """Return the regular expressions in the content of a tokenizer.json, wherever in it they stand.

    Args:
        tokenizer: The content, or a part of it.

    Returns:
        The expressions.

    Example:
        >>> patterns_of({"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}})
        [' {2,}']
    """
    if isinstance(tokenizer, list):
        return [found for one in tokenizer if isinstance(one, dict | list) for found in patterns_of(one)]
    if not isinstance(tokenizer, dict):
        return []
    own = [value for key, value in tokenizer.items() if key == "Regex" and isinstance(value, str)]
    parts = (value for key, value in tokenizer.items() if key not in ("vocab", "merges", "added_tokens"))
    return own + [found for value in parts if isinstance(value, dict | list) for found in patterns_of(value)]


@contextmanager
def vetted(folder: Path, weights: bool = True, tokenizer: bool = True) -> Iterator[Path]:
    """Give libraries a folder that holds what a checkpoint was looked at for, and nothing that leads elsewhere.

    Args:
        folder: The checkpoint, or the folder of a saved model.
        weights: Whether it holds the weights.
        tokenizer: Whether it holds the tokenizer's files.

    Yields:
        A folder with configs without references, links to safetensors files and to a tokenizer's files. It is gone
        afterwards; what is mapped into memory stays.

    Raises:
        SpecError: If a file cannot be read, or refers to one that it may not.
    """
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as made:
        place = Path(made)
        names = _weight_names(folder) if weights else []
        for name in names:
            (place / name).symlink_to(inside(folder, name))
        if names and names != [WEIGHTS]:
            index = read_object(folder, INDEX, _LONGEST_CONFIG * 8)
            (place / INDEX).write_text(json.dumps({"metadata": {}} | index), encoding="utf-8")
        for name in _CONFIGS:
            if (folder / name).exists():
                (place / name).write_text(json.dumps(read_config(folder, name)), encoding="utf-8")
        if tokenizer and read_tokenizer(folder) is not None:
            (place / TOKENIZER_FILES[0]).symlink_to(inside(folder, TOKENIZER_FILES[0]))
        for name in _TEXTS if tokenizer else ():
            if (folder / name).exists():
                file = inside(folder, name)
                if file.stat().st_size > _LONGEST_TOKENIZER:
                    raise SpecError(f"checkpoint {folder}: {name} has more than {_LONGEST_TOKENIZER:,} bytes")
                (place / name).symlink_to(file)
        yield place


def _config(folder: Path) -> dict[str, Any]:
    config = read_object(folder, "config.json")
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            how = config[key].get("quant_method") if isinstance(config[key], dict) else None
            raise SpecError(
                f"checkpoint {folder}: its weights are quantised ({shown(how or key)}), which serves inference alone; "
                "name the original model, or save it in float: model.dequantize().save_pretrained(...)"
            )
    return config


def _check_decoder(checkpoint: str, config: dict[str, Any], tensors: dict[str, list[int]]) -> None:
    kind = shown(config.get("model_type"))[1:-1]
    if config.get("is_decoder"):
        raise SpecError(
            f"checkpoint {checkpoint}: {kind} is set up as a decoder (is_decoder in config.json), which reads from "
            "left to right; name an encoder, such as BERT or DeBERTa"
        )
    halves = any(name.startswith("decoder.") or ".decoder." in name for name in tensors)
    if config.get("is_encoder_decoder") and (halves or kind not in ENCODER_HALVES):
        raise SpecError(
            f"checkpoint {checkpoint}: {kind} is set up as an encoder and a decoder; of T5 and its like the encoder "
            'can be used alone: T5EncoderModel.from_pretrained("OLD").save_pretrained("NEW"). Else name an encoder, '
            "such as BERT or DeBERTa"
        )


def _check_sizes(checkpoint: str, config: dict[str, Any], tensors: dict[str, list[int]]) -> None:
    """Compare what the config declares with what the weights have; only then is memory taken for it."""
    for key, value in config.items():
        for one in value if isinstance(value, list) else [value]:
            large = isinstance(one, int) and abs(one) > _LARGEST_SIZE
            if large or (isinstance(one, float) and not math.isfinite(one)):
                raise SpecError(
                    f"checkpoint {checkpoint}: config.json has {shown(key)} = {shown(one)}; it is too large"
                )
    numbers = {int(found) for name in tensors for found in _LAYER_NUMBER.findall(name)}
    stored = max(numbers, default=-1) + 1
    for key in LAYER_KEYS:
        declared = config.get(key)
        if not isinstance(declared, int):
            continue
        shares = config.get("model_type") == "albert"  # one group of weights is used again by every layer
        if declared > _MOST_LAYERS or (stored and declared > stored and not shares):
            raise SpecError(
                f"checkpoint {checkpoint}: config.json declares {declared:,} layers ({key}); its weights have {stored} "
                f"and lack the others; {_MOST_LAYERS} are allowed"
            )
    dimensions = {one for shape in tensors.values() for one in shape}
    for key in _WIDTH_KEYS:
        declared = config.get(key)
        if isinstance(declared, int) and declared not in dimensions:
            raise SpecError(
                f"checkpoint {checkpoint}: config.json declares {key} = {declared}; no tensor has that size"
            )


def _try_tokenizer(checkpoint: str, file: Path, patterns: list[str]) -> None:
    """Tokenize long runs of what the expressions are made of; the child that this runs in has a limit of time too."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise SpecError(f"checkpoint {checkpoint}: its tokenizer cannot be read ({plain_words(error)})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    letters = list(dict.fromkeys([*" aA0!.-'_\n\táあ漢가", *_letters_of(patterns)]))
    for letter, ending in ((letter, ending) for letter in letters for ending in ("", "\0!")):
        for length, seconds in _PROBES:
            begun = time.process_time()
            try:
                tokenizer.encode(letter * length + ending)
            except BaseException as error:  # a panic of the extension is no Exception
                raise SpecError(
                    f"checkpoint {checkpoint}: its tokenizer fails on {length:,} times {shown(letter)} "
                    f"({plain_words(error)})"
                ) from error
            if time.process_time() - begun > seconds:
                raise SpecError(
                    f"checkpoint {checkpoint}: its tokenizer takes more than {seconds:g} s for {length:,} times "
                    f"{shown(letter)}"
                )


def _try_sentencepiece(checkpoint: str, file: Path) -> None:
    """Read a model of SentencePiece and normalise some text by it; a damaged one may end the process."""
    from tokenizers import normalizers

    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise SpecError(
            f"checkpoint {checkpoint}: its tokenizer is a model of SentencePiece ({file.name}); to read it, "
            "pip install sentencepiece"
        ) from error
    try:
        model: Any = vars(sentencepiece_model_pb2)["ModelProto"]()
        model.ParseFromString(file.read_bytes())
        if not model.pieces:
            raise ValueError("it has no pieces")
        if table := model.normalizer_spec.precompiled_charsmap:
            normalizers.Precompiled(table).normalize_str("aA0 ｶﾞ漢é\u2028")
    except BaseException as error:
        raise SpecError(
            f"checkpoint {checkpoint}: {file.name} is damaged or no model of SentencePiece ({plain_words(error)}); "
            "copy it again, or save the tokenizer as tokenizer.json: "
            'AutoTokenizer.from_pretrained("OLD").save_pretrained("NEW")'
        ) from error


def _letters_of(patterns: list[str]) -> Iterator[str]:
    """Yield letters whose long runs take an expression longest: those that all repeated items of a branch match."""
    from tokenizers import Regex, pre_tokenizers

    plane = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0xFFFE)]))
    matched: dict[str, set[str]] = {}
    for branch in [branch for pattern in patterns for branch in repeated_items(pattern)]:
        for item in set(branch) - set(matched):
            rest = pre_tokenizers.Split(Regex(item), "removed").pre_tokenize_str(plane)
            matched[item] = set(plane).difference(*(part for part, _ in rest))
        yield from (min(matched[item], default="a") for item in branch)
        yield from sorted(set.intersection(*(matched[item] for item in branch)))[:2]


def plain_words(error: BaseException) -> str:
    """Return an error in one line of bounded length.

    Args:
        error: The error.

    Returns:
        Its class and the beginning of its first line.
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
