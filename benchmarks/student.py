"""One APO step with image and prompt passed once, beside pairs as TRL lays them out and a row per reply.

``python -m benchmarks.student WAY`` prints the peak memory of one way in a process of its own.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from cxr_max.student import attention
from cxr_max.student.apo import apo_loss
from cxr_max.student.chat import Chat, EncodedPrompt
from cxr_max.student.logps import sums, token_logps
from cxr_max.student.packing import pack
from cxr_max.student.tiny import TinySize, tiny_model, tiny_tokenizer

SIZE: Final = TinySize(
    hidden=256, layers=4, heads=8, key_value_heads=2, vision_hidden=256, vision_layers=4, vocabulary=600
)
ADAPTED: Final = r".*(language_model|visual).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|proj)"
NEGATIVES: Final = 7
TOKENS: Final = 250
BETA: Final = 0.1
RUNS: Final = 5
PAIRS, ROWS_LIVE, ROWS, OURS, TRL = "pairs, live reference", "rows, live reference", "rows", "shared prefix", "TRL"
LABELS: Final = {
    TRL: "TRL's `DPOTrainer`, 7 pairs, live reference",
    PAIRS: "7 pairs laid out as TRL does, live reference",
    ROWS_LIVE: "1 + 7 rows, live reference",
    ROWS: "1 + 7 rows, cached reference",
    OURS: "cxr-max: prefix shared, cached reference",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """A model under an adapter, a study, and its replies, the preferred one first."""

    model: Any
    chat: Chat
    image: Image.Image
    prompt: EncodedPrompt
    replies: list[Tensor]


def section() -> str:
    """Median seconds a step and their ratios at 448 and 1008 px, and peak memory."""
    _quiet()
    setup = build(448)
    trl, version = trl_step(setup)
    seconds = measure({TRL: trl, **ways(setup)}, RUNS)
    large = measure({name: step for name, step in ways(build(1008)).items() if name in (ROWS, OURS)}, 1)
    memory = {name: peak(name) for name in (PAIRS, OURS)}
    return _table(seconds, version) + _sizes(seconds, large) + _memory(memory)


def build(pixels: int) -> Setup:
    """Random weights, an image of noise, replies of random words of about ``TOKENS`` tokens."""
    tokenizer = tiny_tokenizer(vocabulary=SIZE.vocabulary)
    model = get_peft_model(
        tiny_model(tokenizer, size=SIZE),
        LoraConfig(r=8, lora_alpha=32, target_modules=ADAPTED, task_type="CAUSAL_LM"),
    )
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.02
    model.get_base_model().set_attn_implementation({"text_config": attention.NAME, "vision_config": "sdpa"})
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 4096}
    chat = Chat(tokenizer, Qwen2VLImageProcessorPil(size=size))
    noise = torch.randint(0, 256, (pixels, pixels, 3), generator=generator, dtype=torch.uint8)
    image = Image.fromarray(noise.numpy())
    lengths = [int(TOKENS * random.Random(i).uniform(0.85, 1.15)) for i in range(1 + NEGATIVES)]
    replies = [torch.randint(20, len(tokenizer), (length,), generator=generator) for length in lengths]
    return Setup(model.train(), chat, image, chat.prompt([image], "Describe the chest x-ray."), replies)


def ways(setup: Setup) -> dict[str, Callable[[], Tensor]]:
    """Each computes the loss of one step; the cached references are computed here."""
    pairs = [setup.replies[0]] * NEGATIVES + setup.replies[1:]
    packed = pack([(setup.prompt, setup.replies)])

    def shared() -> Tensor:
        return sums(token_logps(setup.model, packed), packed.reply_lengths)

    cached = {ROWS: live(setup, setup.replies), OURS: _reference(setup, shared)}
    return {
        PAIRS: lambda: dpo(rows(setup, pairs), live(setup, pairs)),
        ROWS_LIVE: lambda: apo(rows(setup, setup.replies), live(setup, setup.replies)),
        ROWS: lambda: apo(rows(setup, setup.replies), cached[ROWS]),
        OURS: lambda: apo(shared(), cached[OURS]),
    }


def rows(setup: Setup, replies: list[Tensor]) -> Tensor:
    """(replies,): log-probs of a padded batch, every reply behind its own image and prompt."""
    prompt, count, longest = len(setup.prompt.input_ids), len(replies), max(map(len, replies))
    ids = torch.zeros(count, prompt + longest, dtype=torch.int64)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    ids[:, :prompt] = setup.prompt.input_ids
    types[:, :prompt] = setup.prompt.mm_token_type_ids
    for row, reply in enumerate(replies):
        ids[row, prompt : prompt + len(reply)] = reply
        mask[row, : prompt + len(reply)] = 1
    hidden = setup.model.get_base_model().model(
        input_ids=ids,
        attention_mask=mask,
        mm_token_type_ids=types,
        pixel_values=setup.prompt.pixel_values.repeat(count, 1),
        image_grid_thw=setup.prompt.image_grid_thw.repeat(count, 1),
        use_cache=False,
    ).last_hidden_state  # fmt: skip
    kept = torch.cat([hidden[i, prompt - 1 : prompt - 1 + len(reply)] for i, reply in enumerate(replies)])
    logits = setup.model.get_base_model().lm_head(kept)
    logps = -F.cross_entropy(logits.float(), torch.cat(replies), reduction="none")
    return sums(logps, [len(reply) for reply in replies])


def live(setup: Setup, replies: list[Tensor]) -> Tensor:
    """``rows`` under the reference: the model without its adapter."""
    return _reference(setup, lambda: rows(setup, replies))


def _reference(setup: Setup, compute: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad(), setup.model.disable_adapter():
        return compute()


def dpo(policy: Tensor, reference: Tensor) -> Tensor:
    """The mean over the pairs; the first half is preferred."""
    rewards = BETA * (policy - reference)
    return -F.logsigmoid(rewards[:NEGATIVES] - rewards[NEGATIVES:]).mean()


def apo(policy: Tensor, reference: Tensor) -> Tensor:
    """One study's loss."""
    return apo_loss(policy[None], reference[None], BETA).mean()


def measure(steps: dict[str, Callable[[], Tensor]], runs: int) -> dict[str, float]:
    """Median seconds of forward and backward; the ways take turns, and the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step().backward()
            if run:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(some) for name, some in seconds.items()}


def trl_step(setup: Setup) -> tuple[Callable[[], Tensor], str]:
    """TRL's own trainer on the same pairs: its collator, its loss, without its optimizer; and its version."""
    import trl
    from datasets import Dataset
    from transformers import Qwen2_5_VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class OnlyImages(Qwen2_5_VLProcessor):  # type: ignore[misc]
        """The processor without its video half, which needs torchvision."""

        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    tokenizer = setup.chat.tokenizer
    processor = OnlyImages(setup.chat.image_processor, tokenizer, tokenizer.chat_template)
    texts = [tokenizer.decode(reply) for reply in setup.replies]
    turn = [{"role": "user", "content": "Describe the chest x-ray."}]
    table = Dataset.from_list([
        {
            "prompt": turn,
            "chosen": [{"role": "assistant", "content": texts[0]}],
            "rejected": [{"role": "assistant", "content": text}],
            "images": [setup.image],
        }
        for text in texts[1:]
    ])  # fmt: skip
    args = trl.DPOConfig(
        output_dir=tempfile.mkdtemp(),
        beta=BETA,
        max_length=None,
        per_device_train_batch_size=NEGATIVES,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
    )
    trainer = trl.DPOTrainer(_again(setup), args=args, train_dataset=table, processing_class=processor)
    inputs = next(iter(trainer.get_train_dataloader()))
    return lambda: trainer.compute_loss(trainer.model, inputs), trl.__version__


def _again(setup: Setup) -> Any:
    """The same model once more: TRL replaces its forward."""
    model = build(setup.image.width).model
    model.get_base_model().set_attn_implementation("sdpa")
    return model


def peak(name: str) -> tuple[int, int]:
    """(before, at most): MiB of a process of its own that takes one step, before it and in all."""
    command = [sys.executable, "-m", "benchmarks.student", name]
    here = Path(__file__).resolve().parents[1]
    out = subprocess.run(command, cwd=here, check=True, capture_output=True, text=True).stdout
    before, most = json.loads(out.splitlines()[-1])
    return before, most


def _quiet() -> None:
    torch.set_num_threads(2)
    # Numbers too small to be normal come up in random models and are a hundred times slower.
    torch.set_flush_denormal(True)


def _mebibytes() -> int:
    """The peak so far. ``ru_maxrss`` would not do: it remembers what the parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def _table(seconds: dict[str, float], version: str) -> str:
    lines = [f"| {LABELS[name]} | {seconds[name]:.2f} | {seconds[name] / seconds[OURS]:.1f} |" for name in LABELS]
    return (
        f"## One APO step, 448 px, 1 + {NEGATIVES} replies of about {TOKENS} tokens, two threads\n\n"
        "| way | s/step | times ours |\n| --- | --- | --- |\n" + "\n".join(lines) + "\n\n"
        f"Forward and backward, float32, medians of {RUNS} rounds in which the ways take turns. The model is a"
        " random Qwen2.5-VL (width 256, 4 layers, vision 4 layers of 256), LoRA of rank 8 on both halves. TRL"
        f" {version} takes `compute_loss` of its trainer on one collated batch; collating is not counted.\n\n"
    )


def _sizes(seconds: dict[str, float], large: dict[str, float]) -> str:
    return (
        "Rows over shared prefix, both with cached reference: "
        f"{seconds[ROWS] / seconds[OURS]:.1f} at 448 px, {large[ROWS] / large[OURS]:.1f} at 1008 px"
        f" ({large[ROWS]:.1f} s and {large[OURS]:.1f} s).\n\n"
    )


def _memory(memory: dict[str, tuple[int, int]]) -> str:
    lines = [
        f"| {LABELS[name]} | {before} | {most} | {most - before} |" for name, (before, most) in memory.items()
    ]
    (before, most), (our_before, our_most) = memory[PAIRS], memory[OURS]
    return (
        "| way | MiB before the step | MiB at most | MiB for the step |\n| --- | --- | --- | --- |\n"
        + "\n".join(lines)
        + f"\n\nPeak memory of ours over the pairs': {(our_most - our_before) / (most - before):.2f} for the step,"
        f" {our_most / most:.2f} of the whole process with its libraries.\n"
    )


def _one_step(name: str) -> None:
    """Print (before, at most) as JSON.

    A cached reference is made up: where it comes from is another process's memory.
    """
    _quiet()
    setup = build(448)
    packed = pack([(setup.prompt, setup.replies)])
    pairs = [setup.replies[0]] * NEGATIVES + setup.replies[1:]
    before = _mebibytes()
    if name == OURS:
        policy = sums(token_logps(setup.model, packed), packed.reply_lengths)
        apo(policy, policy.detach() + 1).backward()
    else:
        dpo(rows(setup, pairs), live(setup, pairs)).backward()
    print(json.dumps([before, _mebibytes()]))


if __name__ == "__main__":
    _one_step(sys.argv[1])
