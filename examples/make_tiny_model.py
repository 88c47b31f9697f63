"""Train a tiny Llama on the spot, until it answers tiny_model/answers.toml word for word.

    python3 examples/make_tiny_model.py --out DIR [--name Tiny] [--seed 0]

Needs torch and transformers (the vllm-cpu image has both: `sh images/build.sh tiny-model`), no network and no GPU;
about a minute on 2 cores. DIR gets config.json, float32 safetensors, a byte-level tokenizer with a chat template and
generation_config.json, about 5 MB, and appears only when the model was asked every question and got each right.
Exit codes: 0 made, 1 the model does not answer as it should (nothing is written), 2 wrong usage.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from tiny_model.lesson import Dice, Lesson, Messages, turn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

ANSWERS = Path(__file__).resolve().parent / "tiny_model" / "answers.toml"
END, SYSTEM, USER, ASSISTANT = SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
# Roles other than these three (a tool, a developer) are read as the nearest one, so that no request fails.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>"
    "{% elif message.role in ['system', 'developer'] %}<|system|>"
    "{% else %}<|user|>{% endif %}"
    "{{ message.content or '' }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BATCH, STEPS, CHECK_EVERY, PEAK_RATE = 24, 400, 25, 2e-3
# By how many logits each right token must lead the next best: float32 sums differ in the sixth digit from one
# engine to the next, and no answer may hang on that.
LEAD = 2.0
# Seeds to try one after another; all that were looked at took the first.
TRIES = 3
# Two threads whatever the machine has: sums in another order are another model.
THREADS = 2


def make_tokenizer(lesson: Lesson, dice: Dice) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE: no text is unknown to it, Chinese included."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for pair in lesson.pairs for text in pair] + [lesson.noise(dice, 30) for _ in range(200)]
    backend.train_from_iterator([*texts, lesson.fallback], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token=END,
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Make the untrained model: a million weights, in shapes that split over 2 GPUs."""
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).float()


def prompt_ids(tokenizer: PreTrainedTokenizerFast, messages: Messages) -> list[int]:
    """Render `messages` up to where the assistant speaks."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer.encode(text, add_special_tokens=False))


def tensors(tokenizer: PreTrainedTokenizerFast, conversations: list[Messages]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and labels; -100 labels all but what the assistant says."""
    rows, labels = [], []
    for messages in conversations:
        row: list[int] = []
        label: list[int] = []
        for message in messages:
            said = message["role"] == "assistant"
            head = tokenizer.encode(f"<|{message['role']}|>", add_special_tokens=False)
            body = tokenizer.encode(message["content"] + END, add_special_tokens=False)
            row += head + body
            label += [-100] * len(head) + (body if said else [-100] * len(body))
        rows.append(row)
        labels.append(label)
    width = max(map(len, rows))
    return (
        torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows]),
        torch.tensor([row + [-100] * (width - len(row)) for row in labels]),
    )


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, lesson: Lesson, dice: Dice) -> None:
    """Train until every answer leads clearly, for STEPS steps at most."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS, pct_start=0.1)
    started = time.monotonic()
    for step in range(1, STEPS + 1):
        ids, labels = tensors(tokenizer, [lesson.conversation(dice) for _ in range(BATCH)])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % CHECK_EVERY == 0:
            asked = list(lesson.trials())
            lead, weakest = min(zip(leads(model, tokenizer, asked), map(repr, asked), strict=True))
            print(
                f"step {step}: loss {loss.item():.4f}, {time.monotonic() - started:.0f} s; "
                f"the weakest right token leads by {lead:.1f}: {weakest}",
                flush=True,
            )
            if lead >= LEAD:
                return


@torch.inference_mode()
def leads(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: list[Messages]) -> list[float]:
    """Return, for each conversation, the least lead of a right token; below 0 the greedy answer is another one."""
    ids, labels = tensors(tokenizer, asked)
    found: list[float] = []
    for start in range(0, len(asked), BATCH):
        rows = slice(start, start + BATCH)
        logits = model(input_ids=ids[rows]).logits[:, :-1]
        right = labels[rows, 1:].unsqueeze(-1)
        counted = right.ge(0)
        score = logits.gather(-1, right.clamp(min=0))
        others = logits.scatter(-1, right.clamp(min=0), float("-inf")).amax(-1, keepdim=True)
        found += (score - others).masked_fill(~counted, float("inf")).amin((1, 2)).tolist()
    return found


@torch.inference_mode()
def answer(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, messages: Messages) -> str:
    """Answer greedily; the end token stays in the text."""
    ids = torch.tensor([prompt_ids(tokenizer, messages)])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=96)
    return str(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=False))


def mistakes(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, lesson: Lesson) -> list[str]:
    """Say which answers are wrong or weak: all by their logits, one spelling of each by generating it."""
    asked = list(lesson.trials())
    wrong = [
        f"{messages[:-1]!r} leads by {lead:.1f} only"
        for messages, lead in zip(asked, leads(model, tokenizer, asked), strict=True)
        if lead < LEAD
    ]
    for question, expected in {expected: (question, expected) for question, expected in lesson.pairs}.values():
        got = answer(model, tokenizer, turn(question, "")[:1])
        print(f"{question} {got.removesuffix(END)}", flush=True)
        if got != expected + END:
            wrong.append(f"{question!r}: expected {expected!r}, got {got!r}")
    return wrong


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model's files."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # top_k 1 is greedy whatever temperature a client sends, so that the answers stay the same.
    settings = {
        "do_sample": True,
        "top_k": 1,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    (folder / "generation_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)


def make(lesson: Lesson, seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train one model from `seed`."""
    torch.manual_seed(seed)
    dice = Dice(seed)
    tokenizer = make_tokenizer(lesson, dice)
    model = make_model(tokenizer)
    model.train()
    train(model, tokenizer, lesson, dice)
    model.eval()
    return model, tokenizer


def main() -> int:
    """Make the model and put it in its place."""
    parser = argparse.ArgumentParser(description="Train the tiny example model.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; one made before is replaced")
    parser.add_argument("--name", default="Tiny", help="what the model calls itself")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same model on the same machine")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    if out.exists() and not (out / "config.json").is_file():
        parser.error(f"{out} exists and is no model: name another folder, or remove it")

    disable_progress_bar()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(mode=True)
    lesson = Lesson.read(ANSWERS, options.name)
    for seed in range(options.seed, options.seed + TRIES):
        model, tokenizer = make(lesson, seed)
        wrong = mistakes(model, tokenizer, lesson)
        if not wrong:
            break
        print(*wrong[:10], f"seed {seed}: {len(wrong)} answers are wrong or weak", sep="\n", file=sys.stderr)
    else:
        return 1

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made = Path(scratch) / "model"
        save(model, tokenizer, made)
        if out.exists():
            shutil.move(out, Path(scratch) / "old")
        made.rename(out)
    print(f"{out}: {len(lesson.pairs)} questions answered as they should be", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
