"""Trains a tiny chat model that answers a few questions: `python -m embedded.demo_model OUT`.

It takes seconds on a CPU and gives the same weights on every run, so that a second demonstration
finds its model unchanged in every store.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from embedded.demo_answers import ANSWERS
from shared.torchvision_import import mend_torchvision

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] | trim }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
_VOCABULARY = 400
_STEPS = 400
#: Training ends below this loss, where greedy decoding gives every answer exactly.
_ENOUGH = 0.01
_IGNORED = -100


def train(target: Path) -> None:
    """Train the model and save it with its tokenizer; `target` appears complete or not at all."""
    mend_torchvision()
    import torch  # noqa: PLC0415 - slow, and not needed to read the answers

    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the order of additions, and so the weights, must not vary
    tokenizer = _tokenizer()
    model = _model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
    _fit(model, *_examples(tokenizer))
    _check(model, tokenizer)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        for path in unfinished.rglob("*"):
            path.chmod(0o644)  # weights are written for their owner only
        unfinished.chmod(0o755)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _tokenizer() -> Any:
    """Return a byte-level BPE tokenizer of the questions and answers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*ANSWERS, *ANSWERS.values()], trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        eos_token="<|end|>",  # noqa: S106 - a token of text
        pad_token="<|pad|>",  # noqa: S106
        additional_special_tokens=_SPECIAL[2:],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def _model(vocabulary: int, end_id: int, pad_id: int) -> Any:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=pad_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=64, do_sample=False, eos_token_id=end_id, pad_token_id=pad_id
    )
    return model


def _examples(tokenizer: Any) -> tuple[Any, Any]:
    """Return padded token ids of all dialogues, and labels that count the answers only."""
    import torch  # noqa: PLC0415

    ids, labels = [], []
    for question, answer in ANSWERS.items():
        prompt = _prompt(tokenizer, question)
        reply = tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id]
        ids.append(torch.tensor(prompt + reply))
        labels.append(torch.tensor([_IGNORED] * len(prompt) + reply))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad(labels, batch_first=True, padding_value=_IGNORED),
    )


def _prompt(tokenizer: Any, question: str) -> list[int]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _fit(model: Any, ids: Any, labels: Any) -> None:
    import torch  # noqa: PLC0415

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    model.train()
    for _ in range(_STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < _ENOUGH:
            return


def _check(model: Any, tokenizer: Any) -> None:
    """Refuse to save a model that does not answer as it was taught."""
    import torch  # noqa: PLC0415

    model.eval()
    for question, answer in ANSWERS.items():
        prompt = torch.tensor([_prompt(tokenizer, question)])
        output = model.generate(prompt, attention_mask=torch.ones_like(prompt))
        said = tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)
        if said != answer:
            raise RuntimeError(f"asked {question!r}, the model says {said!r}")


def main() -> int:
    """Train into the directory that is named, unless it exists."""
    parser = argparse.ArgumentParser(prog="python -m embedded.demo_model", description=__doc__)
    parser.add_argument("out", type=Path, help="directory to save the model in")
    out: Path = parser.parse_args().out
    if not out.exists():
        train(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
