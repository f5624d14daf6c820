"""The tasks for inspect_ai: what is shown, what is read, who is refused, and the same numbers as cxr-max's own."""

import base64
import importlib
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the tasks need inspect_ai: pip install 'cxr-max[inspect]'")

import inspect_ai
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageUser,
    ContentImage,
    ContentText,
    Model,
    ModelOutput,
    ModelUsage,
    StopReason,
    get_model,
    modelapi,
)
from inspect_ai.model._providers.mockllm import MockLLM
from inspect_ai.scorer import SampleScore, Score

from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.pixels import open_pixels
from cxr_max.data_use import Gate
from cxr_max.errors import DataUseError, RequestError
from cxr_max.eval import inspect_tasks
from cxr_max.eval.asking import Wanted
from cxr_max.eval.run import EvalRequest
from cxr_max.eval.subject import Given
from cxr_max.findings import FINDINGS
from cxr_max.ledger import Ledger
from tests.eval import data
from tests.mimic_fixture import write_mimic

SUITES = {
    "generalization": "[generalization]",
    "consistency": '[consistency]\nimage_sets = 6\nsamples = 1\nparaphrases = ["brief"]',
    "robustness": '[robustness]\nimage_sets = 5\ncorruptions = ["noise", "device"]\nseverities = [2]',
    "everything": (
        '[consistency]\nimage_sets = 4\nsamples = 1\nparaphrases = ["list"]\n[generalization]\n'
        "[report]\nimage_sets = 3"
    ),
}
SUITES["pictures"] = (
    '[consistency]\nimage_sets = 2\nsamples = 0\nparaphrases = ["brief"]\n'
    '[robustness]\nimage_sets = 2\ncorruptions = ["noise", "device"]\nseverities = [2]'
)
HOST = "reader.example.com"


class Quiet:
    """A watch of a build that looks away."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve phantom studies, ten of them in the split train and two for validation, asked of three personas."""
    out = tmp_path_factory.mktemp("run")
    build(
        BuildRequest(source="phantom", teachers="sim-grok-4,sim-gpt-5-nano,sim-glm-4.5v", out=out, studies=12),
        Quiet(),
    )
    return out


@pytest.fixture(scope="module")
def credentialed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("credentialed")
    _, jpg = write_mimic(tmp_path_factory.mktemp("mimic"))
    build(BuildRequest(source=f"mimic-cxr-jpg:{jpg}", teachers="sim-grok-4", out=out), Quiet())
    return out


@pytest.fixture
def suite(tmp_path: Path) -> Callable[[str], str]:
    def write(name: str, split: str = "train") -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(f'name = "{name}"\nversion = 1\nsplit = "{split}"\nresamples = 200\n{SUITES[name]}\n')
        return str(path)

    return write


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("INSPECT_TRACE_FILE", str(tmp_path / "trace.log"))
    return tmp_path / "logs"


def reply(rng: random.Random) -> tuple[str, StopReason]:
    """A reply of any kind: mostly whole answers with states and sides, some of them contradicting their text."""
    kind = rng.random()
    if kind < 0.08:
        return "I'm sorry, but I cannot interpret medical images.", "stop"
    if kind < 0.13:
        return "The heart is of normal size.", "stop"
    if kind < 0.18:
        return "The heart is of", "max_tokens"
    if kind < 0.22:
        return "", "content_filter"
    lines = []
    for name in FINDINGS:
        state = rng.choice(("present", "present, left", "present, right", "absent", "uncertain", ""))
        if state:
            lines.append(f"{name}: {state}")
    said = rng.choice(("The heart is enlarged.", "There is no pleural effusion.", "No pneumothorax is seen."))
    return f"{said}\n\nANSWER\n" + "\n".join(lines), "stop"


def scripted(seed: int, broken: float = 0.0) -> Callable[..., ModelOutput]:
    """Replies of a seed; a share of the requests gets none."""
    rng = random.Random(seed)

    def answer(*_: object) -> ModelOutput:
        if rng.random() < broken:
            raise ConnectionError("the line is dead")
        return said(*reply(rng))

    return answer


def said(text: str, ended: StopReason = "stop") -> ModelOutput:
    """An output that says its tokens: the mock would fetch a tokenizer to count them."""
    output = ModelOutput.from_content("mockllm/model", text, stop_reason=ended)
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output


def evaluated(task: str, model: Model, arguments: Mapping[str, Any], **options: Any) -> EvalLog:
    (log,) = inspect_ai.eval(
        getattr(inspect_tasks, task)(**arguments), model=model, display="none", log_level="error", **options
    )
    return read_eval_log(log.location, resolve_attachments=True)


def mocked(seed: int, broken: float = 0.0) -> Model:
    return get_model("mockllm/model", custom_outputs=scripted(seed, broken))


def metrics_of(log: EvalLog) -> dict[str, float]:
    assert log.results is not None
    (score,) = log.results.scores
    return {name: float(metric.value) for name, metric in score.metrics.items()}


def sentence(log: EvalLog) -> str:
    assert log.status == "error" and log.error is not None
    return log.error.message


STATUS = {"max_tokens": "truncated", "content_filter": "filtered", "stop": "ok"}


def own_numbers(log: EvalLog, run: Path, suite: str, out: Path) -> dict[str, float]:
    """What cxr-max makes of the texts in a log, handed in as a file of predictions."""
    import pandas as pd

    rows = []
    for sample in log.samples or []:
        failed = not sample.output.choices
        rows.append({
            "study_id": sample.metadata["study"],
            "image_ids": " ".join(sample.metadata["images"]),
            "condition": sample.metadata["condition"],
            "status": "failed" if failed else STATUS[sample.output.stop_reason],
            "text": None if failed else sample.output.completion,
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(out / "texts.csv", index=False)
    request = EvalRequest(run, out / "eval", Given(predictions=out / "texts.csv"), suite)
    numbers: dict[str, float] = {}
    with data.evaluated(request) as prepared:
        scores = prepared.finish(lambda *_: None).scores
    for score in scores:
        if score.finding is None and score.group not in ("seen in training", "unseen"):
            name = "/".join(part for part in (score.task, score.metric, score.condition, score.group) if part)
            values = {name: score.value, f"{name}/low": score.low, f"{name}/high": score.high}
            numbers |= {key: value for key, value in values.items() if value is not None}
    return numbers


@pytest.mark.parametrize(
    ("task", "name"), [*((name, name) for name in list(SUITES)[:3]), ("consistency", "everything")]
)
def test_the_numbers_are_those_of_cxr_max(
    task: str, name: str, run: Path, suite: Callable[[str], str], tmp_path: Path
) -> None:
    log = evaluated(task, mocked(1), {"release": str(run), "suite": suite(name)})
    assert log.status == "success", log.error
    found, expected = metrics_of(log), own_numbers(log, run, suite(name), tmp_path)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=0, abs=1e-9)
    assert len([key for key in found if not key.endswith(("/low", "/high"))]) >= 10
    assert any(key.endswith("/low") for key in found)


def test_what_inspect_has_no_reply_to_counts_as_failed(
    run: Path, suite: Callable[[str], str], tmp_path: Path
) -> None:
    arguments = {"release": str(run), "suite": suite("consistency")}
    log = evaluated("consistency", mocked(2, broken=0.2), arguments, fail_on_error=False)
    without = [sample for sample in log.samples or [] if sample.error]
    assert 3 < len(without) < len(log.samples or []) / 2 and not any(sample.scores for sample in without)
    expected = own_numbers(log, run, suite("consistency"), tmp_path)
    assert metrics_of(log) == pytest.approx(expected, rel=0, abs=1e-9)


def test_a_limit_takes_whole_image_sets_from_the_first_by_hash(run: Path, suite: Callable[[str], str]) -> None:
    arguments = {"release": str(run), "suite": suite("consistency")}
    answer = said("The heart is enlarged.\n\nANSWER\nCardiomegaly: present\nPneumonia: absent")
    model = get_model("mockllm/model", custom_outputs=lambda *_: answer)
    log = evaluated("consistency", model, arguments, limit=10)
    conditions = ["original", "sample-1", "paraphrase-brief", "mirror", "blank"]
    samples = log.samples or []
    assert Counter(sample.metadata["condition"] for sample in samples) == dict.fromkeys(conditions, 2)
    assert len({sample.metadata["study"] for sample in samples}) == 2
    assert metrics_of(log)["consistency/self_consistency"] == 1


def test_validation_is_asked_as_it_is_and_last(run: Path, suite: Callable[[str], str]) -> None:
    task = inspect_tasks.consistency(release=str(run), suite=suite("consistency"))
    about = [sample.metadata or {} for sample in task.dataset]
    splits = [one["split"] for one in about]
    # Ten originals, six image sets under four more conditions, and two more originals for thresholds.
    assert splits == ["train"] * (10 + 6 * 4) + ["validation"] * 2
    assert {one["condition"] for one in about if one["split"] == "validation"} == {"original"}


def test_a_sample_says_what_it_is_about(run: Path, suite: Callable[[str], str]) -> None:
    task = inspect_tasks.generalization(release=str(run / "release"), suite=suite("generalization"))
    pixels = open_pixels(run / "release")
    assert len({sample.id for sample in task.dataset}) == len(task.dataset) == 12
    for sample in task.dataset:
        about = sample.metadata or {}
        study = pixels.studies[about["study"]]
        assert isinstance(sample.target, str)
        assert json.loads(sample.target) == study.reference_findings
        assert about["subject"] == study.subject_id and about["split"] == study.split
        assert about["images"] == [image.image_id for image in study.radiographs]


def test_the_pictures_are_those_that_cxr_max_eval_sends(
    run: Path, suite: Callable[[str], str], tmp_path: Path
) -> None:
    request = EvalRequest(run, tmp_path / "eval", Given(teacher="sim-grok-4"), suite("pictures"))
    with data.evaluated(request) as prepared:
        prepared.ask(Quiet())
        with Ledger(prepared.folder.ledger) as ledger:
            sent = {
                (one.asked.study_id, str(one.condition)): (one.prompt, sha256_sent(ledger, one))
                for one in prepared.questions()
            }
    log = evaluated("robustness", mocked(4), {"release": str(run), "suite": suite("pictures")})
    shown = {}
    for sample in log.samples or []:
        picture, prompt = user_content(sample.messages[0])
        head, _, encoded = picture.image.partition(",")
        assert head == "data:image/jpeg;base64"
        key = sample.metadata["study"], sample.metadata["condition"]
        shown[key] = prompt.text, sha256(base64.b64decode(encoded)).hexdigest()
    assert shown == sent
    assert {condition for _, condition in shown} == {
        "original", "paraphrase-brief", "mirror", "blank", "noise-2", "device-2"
    }  # fmt: skip
    assert len({digest for _, digest in shown.values()}) == 12 + 2 + 1 + 2 + 2


def sha256_sent(ledger: Ledger, one: Wanted) -> str:
    answered = ledger.reply(one.question.request_sha256)
    assert answered is not None
    (digest,) = answered.image_sha256
    return digest


def user_content(message: Any) -> tuple[ContentImage, ContentText]:
    assert isinstance(message, ChatMessageUser) and not isinstance(message.content, str)
    shown, prompt = message.content
    assert isinstance(shown, ContentImage) and isinstance(prompt, ContentText)
    return shown, prompt


def test_a_reply_is_read_into_states_sides_and_status(run: Path, suite: Callable[[str], str]) -> None:
    answer = (
        "ANSWER",
        "Cardiomegaly: absent",
        "Pleural Effusion: present, left",
        "Edema: uncertain",
        "Fracture: absent",
    )
    text = "The heart is enlarged.\n\n" + "\n".join(answer)
    model = get_model("mockllm/model", custom_outputs=lambda *_: said(text))
    log = evaluated("generalization", model, {"release": str(run), "suite": suite("generalization")}, limit=1)
    (sample,) = log.samples or []
    (score,) = (sample.scores or {}).values()
    states = {"Cardiomegaly": 0, "Pleural Effusion": 1, "Edema": -1, "Fracture": 0}
    assert score.value == {"status": "ok", **{name: states.get(name) for name in FINDINGS}}
    assert score.metadata is not None
    assert {name: side for name, side in score.metadata["sides"].items() if side} == {"Pleural Effusion": "left"}
    assert score.metadata["contradictions"] == ["Cardiomegaly"]


def test_a_refusal_that_the_service_declares_is_one() -> None:
    message = ChatMessageAssistant(content=[ContentText(text="No.", refusal=True)])
    output = ModelOutput.from_message(message)
    score = inspect_tasks._read(output, {"prompt": "diagnose", "condition": "original"})
    assert isinstance(score.value, dict)
    assert score.value["status"] == "refused" and score.reason == "refusal"


def test_image_sets_whose_pictures_are_gone_fail_and_are_not_asked_about(
    tmp_path: Path, suite: Callable[[str], str]
) -> None:
    build(BuildRequest(source="phantom", teachers="sim-grok-4", out=tmp_path / "run", studies=12), Quiet())
    arguments = {"release": str(tmp_path / "run"), "suite": suite("generalization")}
    study = next(iter(open_pixels(tmp_path / "run" / "release").studies.values()))
    path = study.radiographs[0].path
    inspect_tasks.generalization(**arguments)  # Finds every study; now one of the files becomes another.
    path.write_bytes(path.read_bytes() + b"\0")
    log = evaluated("generalization", mocked(5), arguments)
    assert log.status == "success"
    gone = [one for one in log.samples or [] if not one.output.choices]
    assert [one.metadata["study"] for one in gone] == [study.study_id]
    (score,) = (gone[0].scores or {}).values()
    assert isinstance(score.value, dict)
    assert score.value["status"] == "failed" and "is not the file that the teachers saw" in (
        score.explanation or ""
    )


# Who may see what.


@modelapi(name="elsewhere")
class Elsewhere(MockLLM):
    """A service somewhere, whose replies are scripted."""

    @property
    def client(self) -> SimpleNamespace:
        """What knows the address, as an SDK's client does."""
        return SimpleNamespace(base_url=self.base_url)


@modelapi(name="nobody-knows")
class NobodyKnows(MockLLM):
    """A provider that does not say where it sends, whatever base URL it is given."""


def remote(outputs: Callable[..., ModelOutput], name: str = "elsewhere", base_url: str | None = None) -> Model:
    return get_model(f"{name}/model", base_url=base_url, memoize=False, custom_outputs=outputs)


def never(*_: object) -> ModelOutput:
    raise AssertionError("something was sent")


def attest(path: Path, host: str = HOST) -> str:
    path.write_text(
        f'[[attestation]]\nprovider = "{host}"\naccount = "ours"\ndate = 2026-01-01\nexpiry = 2999-01-01\n'
        "zero_retention = true\nno_training = true\nno_human_review = true\n"
    )
    return str(path)


def test_credentialed_pictures_are_refused_to_a_remote_model(
    credentialed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_tasks, "_data_urls", never)
    model = remote(never, base_url=f"https://{HOST}/v1")
    refusal = sentence(evaluated("generalization", model, {"release": str(credentialed)}))
    assert "credentialed data" in refusal and HOST in refusal and "attestation" in refusal


def test_a_solver_of_the_users_own_does_not_get_round_the_gate(credentialed: Path) -> None:
    model = remote(never, base_url=f"https://{HOST}/v1")
    log = evaluated("generalization", model, {"release": str(credentialed)}, solver=inspect_ai.solver.generate())
    assert "credentialed data" in sentence(log)


def test_a_model_whose_place_nobody_knows_is_remote(credentialed: Path, tmp_path: Path) -> None:
    arguments = {"release": str(credentialed), "attestation": attest(tmp_path / "attestation.toml")}
    log = evaluated("generalization", remote(never, "nobody-knows", "http://127.0.0.1:8000"), arguments)
    assert "nobody can tell where inspect sends" in sentence(log) and "--model-base-url" in sentence(log)


def test_an_attested_host_is_asked_and_another_is_not(credentialed: Path, tmp_path: Path) -> None:
    arguments = {"release": str(credentialed), "attestation": attest(tmp_path / "attestation.toml")}
    log = evaluated("generalization", remote(scripted(6), base_url=f"https://{HOST}/v1"), arguments)
    assert log.status == "success" and all(sample.output.choices for sample in log.samples or [])
    log = evaluated("generalization", remote(never, base_url="https://other.example.com/v1"), arguments)
    assert "other.example.com" in sentence(log)


def test_a_local_model_is_asked_through_no_proxy_and_its_client_follows_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate("mimic-cxr-jpg", "credentialed")
    model = get_model("openai/model", memoize=False, api_key="k", base_url="http://127.0.0.1:8000/v1")
    inspect_tasks.permit(gate, model)
    assert model.api.client._client.follow_redirects is False  # type: ignore[attr-defined]
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    with pytest.raises(DataUseError, match=r"through the proxy proxy\.example:3128"):
        inspect_tasks.permit(gate, model)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    inspect_tasks.permit(gate, model)


@pytest.mark.parametrize(
    ("provider", "options", "endpoint"),
    [
        ("openai", {"api_key": "k"}, "https://api.openai.com/v1/"),
        ("openai", {"api_key": "k", "base_url": "http://127.0.0.1:8000/v1"}, "http://127.0.0.1:8000/v1/"),
        ("anthropic", {"api_key": "k"}, "https://api.anthropic.com"),
        ("openai-api/mine", {"api_key": "k", "base_url": f"https://{HOST}/v1"}, f"https://{HOST}/v1/"),
        ("ollama", {}, "http://localhost:11434/v1/"),
        ("vllm", {"base_url": "http://10.0.0.7:8000/v1"}, "http://10.0.0.7:8000/v1"),
        ("google", {"api_key": "k"}, None),
        ("google", {"api_key": "k", "base_url": f"https://{HOST}"}, f"https://{HOST}"),
        ("vllm", {}, None),
        ("bedrock", {"base_url": "http://127.0.0.1:8000"}, None),
        ("litellm-proxy", {"api_key": "k", "base_url": "http://127.0.0.1:4000", "model_info": False}, None),
    ],
)
def test_where_a_model_is_asked(provider: str, options: dict[str, Any], endpoint: str | None) -> None:
    try:
        model = get_model(f"{provider}/model", memoize=False, **options)
    except Exception as error:  # noqa: BLE001 - whatever a provider lacks
        pytest.skip(f"inspect's provider {provider} is not to be had here: {error}")
    assert inspect_tasks.endpoint_of(model) == endpoint
    gate = Gate("mimic-cxr-jpg", "credentialed")
    if endpoint and ("127.0.0.1" in endpoint or "localhost" in endpoint):
        inspect_tasks.permit(gate, model)
    else:
        with pytest.raises(DataUseError):
            inspect_tasks.permit(gate, model)
    inspect_tasks.permit(replace(gate, data_use="open"), model)


# Wrong requests.


def test_a_suite_without_the_task_is_refused(run: Path, suite: Callable[[str], str]) -> None:
    with pytest.raises(RequestError, match=r"has no \[robustness\]"):
        inspect_tasks.robustness(release=str(run), suite=suite("consistency"))


def test_two_suites_are_refused(run: Path) -> None:
    with pytest.raises(RequestError, match="name one"):
        inspect_tasks.robustness(release=str(run), suite="robustness,consistency")


def test_an_empty_split_is_refused(run: Path, suite: Callable[[str], str]) -> None:
    with pytest.raises(RequestError, match="nothing in the split test"):
        inspect_tasks.generalization(release=str(run))


def test_epochs_are_refused(run: Path, suite: Callable[[str], str]) -> None:
    arguments = {"release": str(run), "suite": suite("generalization")}
    log = evaluated("generalization", mocked(7), arguments, epochs=2, limit=1)
    assert "leave --epochs out" in sentence(log)


def test_a_changed_suite_is_read_again(run: Path, suite: Callable[[str], str]) -> None:
    path = suite("consistency")
    assert len(inspect_tasks.consistency(release=str(run), suite=path).dataset) == 36
    changed = Path(path).read_text().replace("image_sets = 6", "image_sets = 5")
    Path(path).write_text(changed)
    assert len(inspect_tasks.consistency(release=str(run), suite=path).dataset) == 32


def test_a_metric_of_no_scores_is_nothing(run: Path, suite: Callable[[str], str]) -> None:
    empty: list[SampleScore] = []
    compute = inspect_tasks.numbers(release=str(run), suite=suite("generalization"))
    assert compute(empty) == {}


def test_scores_survive_a_log(run: Path, suite: Callable[[str], str]) -> None:
    arguments = {"release": str(run), "suite": suite("generalization")}
    log = evaluated("generalization", mocked(8), arguments)
    again = inspect_ai.score(log, inspect_tasks.reading(), action="overwrite", display="none")
    assert metrics_of(again) == metrics_of(log)
    kept = [Score.model_validate_json(one.model_dump_json()) for sample in log.samples or []
            for one in (sample.scores or {}).values()]  # fmt: skip
    assert {type(value) for score in kept for value in dict(score.value).values()} == {str, int, type(None)}


@pytest.fixture
def without_inspect(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if inspect_ai were not installed."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "inspect_ai", None)
        patch.delitem(sys.modules, "cxr_max.eval.inspect_tasks")
        yield


def test_without_inspect_there_is_one_sentence(without_inspect: None) -> None:
    with pytest.raises(RequestError, match=r"pip install 'cxr-max\[inspect\]'"):
        importlib.import_module("cxr_max.eval.inspect_tasks")
    for module in ("cxr_max", "cxr_max.cli", "cxr_max.eval.run", "cxr_max.eval.scoring"):
        importlib.import_module(module)


def test_inspect_knows_the_tasks_by_the_name_of_the_package(tmp_path: Path) -> None:
    code = (
        "from inspect_ai._util.registry import registry_info\n"
        "from cxr_max.eval.inspect_tasks import consistency, generalization, robustness\n"
        "print(*(registry_info(task).name for task in (consistency, generalization, robustness)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cxr_max/consistency", "cxr_max/generalization", "cxr_max/robustness"]
