"""Replies in one batch are those that each request would have got alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from cxr_max.student import generation  # noqa: E402
from cxr_max.student.generation import Generated, Request, RowSampler, generate, left_padded  # noqa: E402
from cxr_max.student.model import Student, open_student  # noqa: E402
from tests.student.lessons import base  # noqa: E402


def jpeg(seed: int, width: int = 84, height: int = 84) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def request(prompt: str = "How is the film?", images: Sequence[bytes] = (), **changes: object) -> Request:
    plain = Request(tuple(images) or (jpeg(0),), prompt, None, None, 24, None)
    return replace(plain, **changes)  # type: ignore[arg-type]


RAGGED = [
    request("How?"),
    request("How is the film? " * 9, [jpeg(1, 140, 56)]),
    request("And these two?", [jpeg(2, 56, 112), jpeg(3, 84, 84)], max_tokens=9),
    request("How is the film?", [jpeg(4, 168, 168)], max_tokens=31),
]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """Random weights, scaled so that its choices are no near-ties and depend on what came before."""
    opened = open_student(base(tmp_path_factory.mktemp("tiny") / "model"), dtype="float32")
    with torch.no_grad():
        for weights in opened.model.parameters():
            weights.mul_(8 if weights.ndim > 1 else 1)
    return opened


def test_left_padding_changes_no_greedy_reply(student: Student) -> None:
    alone = [generate(student, [one])[0] for one in RAGGED]
    assert generate(student, RAGGED) == alone
    assert len({one.text for one in alone}) == len(alone)
    assert any(len(set(one.text)) > 2 for one in alone), [one.text[:30] for one in alone]


def test_left_padding_changes_no_logit(student: Student) -> None:
    prompts = [generation._encoded(student.chat, one) for one in RAGGED]
    pad = student.chat.tokenizer.pad_token_id
    with torch.no_grad():
        together = student.model(**left_padded(prompts, pad)).logits[:, -1]
        for row, prompt in enumerate(prompts):
            alone = student.model(**left_padded([prompt], pad)).logits[0, -1]
            assert torch.allclose(together[row], alone, atol=1e-4)


def test_the_test_above_can_fail(student: Student) -> None:
    """With token types that do not say where the images are, positions are others, and so are logits."""
    prompt = generation._encoded(student.chat, RAGGED[3])
    inputs = left_padded([prompt], student.chat.tokenizer.pad_token_id)
    with torch.no_grad():
        right = student.model(**inputs).logits[0, -1]
        inputs["mm_token_type_ids"] = torch.zeros_like(inputs["mm_token_type_ids"])
        assert not torch.allclose(student.model(**inputs).logits[0, -1], right, atol=1e-2)


def test_a_greedy_reply_is_the_likeliest_token_each_time_without_a_cache(student: Student) -> None:
    prompt = generation._encoded(student.chat, RAGGED[1])
    inputs = left_padded([prompt], student.chat.tokenizer.pad_token_id)
    written: list[int] = []
    with torch.no_grad():
        for _ in range(8):
            token = student.model(**inputs).logits[0, -1].argmax().view(1, 1)
            written.append(int(token))
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token], dim=1)
            for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
                inputs[name] = torch.cat([inputs[name], torch.full((1, 1), value)], dim=1)
    expected = student.chat.text(torch.tensor(written))
    assert generate(student, [replace(RAGGED[1], max_tokens=8)])[0].text == expected


def test_a_repetition_penalty_of_the_models_file_is_left_out(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = generate(student, RAGGED)
    monkeypatch.setattr(student.model.generation_config, "repetition_penalty", 5.0)
    monkeypatch.setattr(student.model.generation_config, "do_sample", True)
    monkeypatch.setattr(student.model.generation_config, "temperature", 3.0)
    assert generate(student, RAGGED) == plain


def test_a_seed_gives_the_same_reply_whatever_its_neighbours(student: Student) -> None:
    drawn = request(temperature=0.8, top_p=0.95, seed=5)
    alone = generate(student, [drawn])[0]
    other = replace(RAGGED[1], temperature=1.3, seed=5)
    assert generate(student, [*RAGGED, other, drawn])[-1] == alone
    assert generate(student, [drawn, other])[0] == alone
    assert generate(student, [drawn, drawn]) == [alone, alone]
    assert alone != generate(student, [request()])[0]


def test_a_sampled_neighbour_leaves_a_greedy_reply_alone(student: Student) -> None:
    alone = generate(student, [RAGGED[1]])[0]
    assert generate(student, [request(temperature=2.0, seed=1), RAGGED[1]])[1] == alone


def test_the_callers_random_state_is_left_alone(student: Student) -> None:
    before = torch.random.get_rng_state()
    generate(student, [request(temperature=1.0, seed=3, max_tokens=2)])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seeds_differ_and_so_do_requests_without_one(student: Student) -> None:
    seeded = [request(temperature=1.0, seed=seed) for seed in range(4)]
    unseeded = [request(temperature=1.0)] * 4
    assert len({made.text for made in generate(student, [*seeded, *unseeded])}) == 8


def test_a_temperature_of_zero_is_greedy(student: Student) -> None:
    assert generate(student, [request(temperature=0.0, seed=9)]) == generate(student, [request()])


def first_tokens(scores: "torch.Tensor", temperature: float, top_p: float | None, draws: int) -> Counter[int]:
    rows = [request(temperature=temperature, top_p=top_p, seed=seed) for seed in range(draws)]
    drawn = RowSampler(rows)(torch.zeros(draws, 1, dtype=torch.long), scores.expand(draws, -1))
    return Counter(drawn.argmax(-1).tolist())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_first_tokens_are_as_frequent_as_they_are_likely(student: Student, temperature: float) -> None:
    """Chi-square against the softmax; the seeds are fixed, so the test is no gamble."""
    from scipy.stats import chisquare

    prompt = generation._encoded(student.chat, RAGGED[0])
    with torch.no_grad():
        logits = student.model(**left_padded([prompt], student.chat.tokenizer.pad_token_id)).logits[0, -1] * 2
    expected = (logits / temperature).softmax(-1).double().numpy()
    draws = 6000
    seen = first_tokens(logits, temperature, None, draws)
    common = np.flatnonzero(expected * draws >= 5)
    assert len(common) > 20
    counts = np.array([*(seen[token] for token in common), draws - sum(seen[token] for token in common)])
    chances = np.append(expected[common], 1 - expected[common].sum())
    assert chisquare(counts, chances / chances.sum() * draws).pvalue > 0.01
    wrong = (logits / temperature * 0.8).softmax(-1).double().numpy()
    chances = np.append(wrong[common], 1 - wrong[common].sum())
    assert chisquare(counts, chances / chances.sum() * draws).pvalue < 1e-6


def test_the_noise_of_a_row_is_new_at_every_token() -> None:
    """Two tokens in a row of a fair die with 64 sides are alike in 1 of 64 cases."""
    rows = [request(temperature=1.0, seed=seed) for seed in range(2000)]
    sampler, scores, ids = RowSampler(rows), torch.zeros(2000, 64), torch.zeros(2000, 1, dtype=torch.long)
    alike = int((sampler(ids, scores).argmax(-1) == sampler(ids, scores).argmax(-1)).sum())
    assert 10 < alike < 60


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, {2}), (0.5, {2}), (0.51, {2, 0}), (0.8, {2, 0}), (0.81, {2, 0, 3})]
)
def test_top_p_keeps_the_fewest_tokens_that_make_it_up(top_p: float, kept: set[int]) -> None:
    scores = torch.tensor([0.3, 0.05, 0.5, 0.15]).log()
    assert set(first_tokens(scores, 1.0, top_p, 400)) == kept


def test_top_p_keeps_the_odds_of_what_it_keeps() -> None:
    seen = first_tokens(torch.tensor([0.3, 0.05, 0.5, 0.15]).log(), 1.0, 0.6, 4000)
    assert seen[0] / 4000 == pytest.approx(3 / 8, abs=0.03)


def biased(student: Student, monkeypatch: pytest.MonkeyPatch, token: int, after: int) -> None:
    """Make the model say ``token`` for certain once it has said ``after`` others."""
    call = RowSampler.__call__
    said = []

    def forced(self: RowSampler, ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        said.append(1)
        drawn: torch.Tensor = call(self, ids, scores)
        drawn[:, student.chat.tokenizer.all_special_ids] = -torch.inf
        if len(said) > after:
            drawn[0, token] = torch.inf
        return drawn

    monkeypatch.setattr(RowSampler, "__call__", forced)


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_an_ended_turn_and_a_cut_one_are_told_apart(
    student: Student, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    biased(student, monkeypatch, student.chat.tokenizer.convert_tokens_to_ids(end), after=3)
    ended, cut = generate(student, [request(max_tokens=10), request("How?", max_tokens=7)])
    assert (ended.ended, ended.output_tokens) == ("stop", 4)
    assert (cut.ended, cut.output_tokens) == ("length", 7)
    assert "<|" not in ended.text and ended.text


def test_each_row_ends_at_its_own_limit(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    biased(student, monkeypatch, 0, after=1000)
    made = generate(student, RAGGED)
    assert [one.output_tokens for one in made] == [24, 24, 9, 31]


def test_input_tokens_are_those_of_the_prompt_alone(student: Student) -> None:
    lengths = [len(generation._encoded(student.chat, one).input_ids) for one in RAGGED]
    assert [one.input_tokens for one in generate(student, RAGGED)] == lengths
    assert len(set(lengths)) == len(lengths)


def test_a_cancelled_batch_ends_at_once(student: Student) -> None:
    made = generate(student, [request(max_tokens=10_000)], cancelled=lambda: True)
    assert made[0].output_tokens == 1


def test_no_requests_are_no_replies(student: Student) -> None:
    assert generate(student, []) == []


def test_a_full_gpu_is_a_memory_error(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(student.model, "generate", full)
    with pytest.raises(MemoryError, match="out of memory"):
        generate(student, [request()])


def test_an_adapter_generates_too(student: Student, tmp_path: Path) -> None:
    from cxr_max.student.model import save_student
    from cxr_max.student.settings import Lora

    whole = base(tmp_path / "base")
    adapted = open_student(whole, lora=Lora(rank=4, alpha=8), dtype="float32", trainable=True)
    with torch.no_grad():
        for name, weights in adapted.model.named_parameters():
            if "lora_B" in name:
                weights.normal_(generator=torch.Generator().manual_seed(0))
    save_student(adapted, tmp_path / "adapter")
    save_student(adapted, tmp_path / "merged", merged=True)
    made = [
        generate(open_student(str(folder), dtype="float32"), RAGGED)
        for folder in (tmp_path / "adapter", tmp_path / "merged", tmp_path / "base")
    ]
    assert made[0] == made[1] != made[2]
    assert isinstance(made[0][0], Generated)
