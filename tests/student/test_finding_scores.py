"""Scores out of one pack, against every continuation passed as a row of its own."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from PIL import Image  # noqa: E402
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from torch import Tensor  # noqa: E402

from cxr_max.answers import last_heading  # noqa: E402
from cxr_max.errors import RequestError  # noqa: E402
from cxr_max.findings import FINDINGS, STATES  # noqa: E402
from cxr_max.student import finding_scores as module  # noqa: E402
from cxr_max.student.chat import EncodedPrompt  # noqa: E402
from cxr_max.student.finding_scores import finding_scores, state_probabilities  # noqa: E402
from cxr_max.student.generation import Request, _encoded  # noqa: E402
from cxr_max.student.logps import token_logps  # noqa: E402
from cxr_max.student.model import Student, open_student  # noqa: E402
from cxr_max.student.packing import pack  # noqa: E402
from cxr_max.student.tiny import SPECIAL_TOKENS, tiny_tokenizer, write_tiny  # noqa: E402
from tests.student.lessons import SMALL, base  # noqa: E402
from tests.student.test_generation import jpeg, request  # noqa: E402

REPLY = "The film is bright, and the heart is wide.\n\nANSWER\nCardiomegaly: present\nEdema: absent"
CASES = [
    (request(), REPLY),
    (request("How is the film? " * 9, [jpeg(1, 140, 56)]), "**Final answer:**\nEdema: uncertain, left"),
    (request("These two?", [jpeg(2, 56, 112), jpeg(3, 84, 84)]), "Both <|image_pad|> are dark.<|im_end|>\nANSWER"),
    (request("<|im_start|>?", [jpeg(4, 168, 168)]), "ANSWER\nEdema: present\n\nNo:\n## ANSWER\r\nEdema: absent"),
]  # fmt: skip
REQUESTS, TEXTS = [one for one, _ in CASES], [text for _, text in CASES]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """Random weights, scaled so that what came before matters; each state is one token."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    write_tiny(folder, seed=1, texts=[f": {state}" for state in STATES] * 90, size=replace(SMALL, vocabulary=900))
    made = attentive(open_student(str(folder), dtype="float32"))
    assert {len(made.chat.reply(f" {state}")) for state in STATES} == {2}
    return made


def attentive(student: Student) -> Student:
    with torch.no_grad():
        for weights in student.model.parameters():
            weights.mul_(4 if weights.ndim > 1 else 1)
    return student


def naive(student: Student, asked: Request, text: str) -> Tensor:
    """(14, 3): by 42 texts, each tokenised and passed whole, with transformers' own attention and positions."""
    heading = last_heading(text)
    assert heading is not None
    said = text[: heading.end()]
    logps = [[_word(student, asked, f"{said}\n{name}:", state) for state in STATES] for name in FINDINGS]
    return torch.tensor(logps, dtype=torch.float64).softmax(-1)


def _word(student: Student, asked: Request, before: str, state: str) -> float:
    """The log-probability of the tokens that reach beyond ``before``."""
    read = student.chat.tokenizer(
        f"{before} {state}", add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    reply, word = torch.tensor(read["input_ids"]), [end > len(before) for _, end in read["offset_mapping"]]
    prompt = _encoded(student.chat, asked)
    ids = torch.cat([prompt.input_ids, reply])[None]
    with torch.no_grad():
        logits = student.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=torch.cat([prompt.mm_token_type_ids, torch.zeros_like(reply)])[None],
            pixel_values=prompt.pixel_values,
            image_grid_thw=prompt.image_grid_thw,
            use_cache=False,
        ).logits[0]
    values = -F.cross_entropy(logits[len(prompt.input_ids) - 1 : -1], reply, reduction="none")
    return float(values[torch.tensor(word)].sum())


@pytest.mark.parametrize("case", range(len(CASES)))
def test_scores_are_those_of_one_forward_pass_per_continuation(student: Student, case: int) -> None:
    expected = naive(student, *CASES[case])
    assert expected.std(0).min() > 1e-3, "a score that is the same for all findings tests nothing"
    [scores] = finding_scores(student, REQUESTS[case : case + 1], TEXTS[case : case + 1])
    assert scores is not None and tuple(scores) == FINDINGS
    assert list(scores.values()) == pytest.approx(expected[:, 0].tolist(), abs=1e-5)


def test_a_state_of_several_tokens_is_as_likely_as_all_of_them(tmp_path: Path) -> None:
    """Of random weights, long words are so unlikely that only the odds tell right from wrong."""
    letters = attentive(open_student(base(tmp_path / "model"), dtype="float32"))
    assert len({len(letters.chat.reply(f" {state}")) for state in STATES}) > 1
    chances = state_probabilities(letters, REQUESTS[0], REPLY[: REPLY.index("ANSWER") + 6])
    assert (chances.log() - naive(letters, REQUESTS[0], REPLY).log()).abs().max() < 1e-4


def test_all_three_states_are_right_and_add_up_to_one(student: Student) -> None:
    asked, text = CASES[0]
    chances = state_probabilities(student, asked, text[: text.index("ANSWER") + 6])
    assert chances.shape == (14, 3) and bool((chances > 0).all())
    assert (chances.sum(-1) - 1).abs().max() < 1e-12
    assert (chances - naive(student, asked, text)).abs().max() < 1e-5
    [scores] = finding_scores(student, [asked], [text])
    assert scores is not None and list(scores.values()) == chances[:, 0].tolist()


def test_a_reply_is_scored_alike_whatever_its_neighbours(student: Student) -> None:
    alone = [finding_scores(student, [asked], [text])[0] for asked, text in CASES]
    assert finding_scores(student, REQUESTS, TEXTS) == alone
    assert finding_scores(student, REQUESTS[::-1], TEXTS[::-1]) == alone[::-1]
    assert len({tuple(one.values()) for one in alone if one}) == len(CASES)


def test_a_reply_without_a_heading_has_no_scores(student: Student) -> None:
    texts = ["", "The answer is: Edema.", "Edema: present", REPLY]
    assert [one is None for one in finding_scores(student, REQUESTS, texts)] == [True, True, True, False]


def test_no_replies_have_no_scores(student: Student) -> None:
    assert finding_scores(student, [], []) == []


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (replace(REQUESTS[0], images=(jpeg(9),)), REPLY),
        (replace(REQUESTS[0], prompt="What is it?"), REPLY),
        (REQUESTS[0], REPLY.replace("bright", "dark")),
        (REQUESTS[0], REPLY.replace("ANSWER", "## ANSWER")),
    ],
)
def test_image_question_and_reasoning_matter(student: Student, asked: Request, text: str) -> None:
    before, after = finding_scores(student, [REQUESTS[0], asked], [REPLY, text])
    assert before and after and max(abs(before[name] - after[name]) for name in FINDINGS) > 1e-3


def test_how_a_reply_is_drawn_does_not_matter(student: Student) -> None:
    drawn = replace(REQUESTS[0], temperature=1.0, top_p=0.5, seed=3, max_tokens=1)
    before, after = finding_scores(student, [REQUESTS[0], drawn], [REPLY, REPLY])
    assert before == after


@given(st.text(max_size=60).filter(lambda below: last_heading(below) is None))
@settings(max_examples=15, deadline=None)
def test_what_stands_below_the_heading_does_not_matter(student: Student, below: str) -> None:
    above = REPLY[: REPLY.index("ANSWER") + 6]
    before, after = finding_scores(student, [REQUESTS[0]] * 2, [above, f"{above}\n{below}"])
    assert before == after


def test_in_training_nothing_is_dropped_and_the_mode_stays(tmp_path: Path) -> None:
    plain = attentive(open_student(base(tmp_path / "model"), dtype="float32"))
    adapter = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.5, target_modules=["q_proj"], init_lora_weights=False)
    opened = replace(plain, model=get_peft_model(plain.model, adapter).train())
    forward = [_drops(opened) for _ in range(2)]
    assert not torch.equal(*forward), "there is nothing that could be dropped"
    first, second = (finding_scores(opened, [asked], [text]) for asked, text in (CASES[0], CASES[0]))
    assert first == second and opened.model.training
    opened.model.eval()
    assert finding_scores(opened, [REQUESTS[0]], [REPLY]) == first and not opened.model.training


def _drops(student: Student) -> Tensor:
    with torch.no_grad():
        return token_logps(
            student.model, pack([(_encoded(student.chat, REQUESTS[0]), [student.chat.reply(REPLY)])])
        )


def test_no_gradient_is_kept(student: Student) -> None:
    assert not state_probabilities(student, REQUESTS[0], "ANSWER").requires_grad


def qwen_like() -> Any:
    """A tokenizer that splits as Qwen's does: signs take the ends of lines behind them along."""
    splits = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(splits), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    lines = [f"**ANSWER**\n{name}: {state}" for name in FINDINGS for state in STATES]
    backend.train_from_iterator(
        lines * 3,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = tiny_tokenizer(vocabulary=400)
    tokenizer._tokenizer = backend
    return tokenizer


def test_a_token_that_reaches_over_the_seam_is_kept_whole(student: Student) -> None:
    turned = replace(student, chat=replace(student.chat, tokenizer=qwen_like()))
    text = "It is wide.\n**ANSWER**"
    apart = [*turned.chat.reply(text)[:-1], *turned.chat.reply("\nEdema: absent")[:-1]]
    whole = turned.chat.reply(f"{text}\nEdema: absent")[:-1]
    assert apart != whole.tolist() and "**\n" in [turned.chat.text(token[None]) for token in whole]
    [scores] = finding_scores(turned, [REQUESTS[0]], [text])
    assert scores is not None
    expected = naive(turned, REQUESTS[0], text)[:, 0]
    assert list(scores.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_image_prompt_and_reasoning_pass_once(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def counted(model: Any, packed: Any) -> Tensor:
        lengths.append(packed.input_ids.shape[1])
        return token_logps(model, packed)

    monkeypatch.setattr(module, "token_logps", counted)
    asked, text = request(images=[jpeg(4, 168, 168)]), "It is bright. " * 40 + "\nANSWER"
    finding_scores(student, [asked], [text])
    once = len(_encoded(student.chat, asked).input_ids) + len(student.chat.reply(text))
    lines = sum(len(student.chat.reply(f"\n{name}: {state}")) - 1 for name in FINDINGS for state in STATES)
    assert len(lengths) == 1 and once < lengths[0] <= once + lines


def test_a_full_gpu_is_a_memory_error(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "token_logps", full)
    with pytest.raises(MemoryError, match="out of memory"):
        finding_scores(student, [REQUESTS[0]], [REPLY])


def test_weights_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    opened = open_student(base(tmp_path / "model"), dtype="float32")
    with torch.no_grad():
        next(opened.model.model.language_model.layers[0].parameters()).fill_(torch.nan)
    with pytest.raises(RequestError, match="no number"):
        finding_scores(opened, [REQUESTS[0]], [REPLY])


def test_a_student_that_learnt_a_finding_scores_pictures_it_never_saw(tmp_path: Path) -> None:
    """Bright is present, dark is absent, grey is uncertain; the reasoning is the same for all."""
    opened = open_student(base(tmp_path / "model"), dtype="float32")
    levels = {"present": 220, "absent": 20, "uncertain": 120}
    said = "A film.\nANSWER"
    lessons = [
        (bare(opened, level + shift), [opened.chat.reply(f"{said}\nEdema: {state}")])
        for state, level in levels.items()
        for shift in (-12, 12)
    ]
    packed = pack(lessons)
    optimizer = torch.optim.AdamW(opened.model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        (-token_logps(opened.model, packed).sum() / len(lessons)).backward()
        optimizer.step()
    for state, level in levels.items():
        chances = state_probabilities(opened, request(images=[flat(level)]), said)[FINDINGS.index("Edema")]
        assert chances[tuple(STATES).index(state)] > 0.8, (state, chances)
        [scores] = finding_scores(opened, [request(images=[flat(level)])], [said])
        assert scores is not None and (scores["Edema"] > 0.8) == (state == "present") == (scores["Edema"] > 0.2)


def bare(student: Student, grey: int) -> EncodedPrompt:
    return _encoded(student.chat, request(images=[flat(grey)]))


def flat(grey: int) -> bytes:
    file = BytesIO()
    Image.new("L", (84, 84), grey).save(file, "JPEG")
    return file.getvalue()
