"""A published model whose tokenizer is a SentencePiece file, and nothing else, can be loaded."""

import json
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

TEXT = "the quick brown fox jumps over the lazy dog"


@pytest.mark.parametrize(
    ("name", "tokenizer", "kind"),
    [
        ("tokenizer.model", "LlamaTokenizer", "bpe"),
        ("spiece.model", "T5Tokenizer", "unigram"),
    ],
)
def test_a_tokenizer_of_one_file_reads_and_writes(
    tmp_path: Path, name: str, tokenizer: str, kind: str
) -> None:
    with (tmp_path / name).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([TEXT] * 4),
            model_writer=file,
            model_type=kind,
            vocab_size=40,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    config = {"tokenizer_class": tokenizer}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    ids = loaded(TEXT)["input_ids"]
    assert len(set(ids)) > 10
    assert loaded.decode(ids, skip_special_tokens=True) == TEXT
