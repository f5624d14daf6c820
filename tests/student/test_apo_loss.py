"""The APO loss against TRL's DPO loss, closed forms, and what must hold for any log-probs."""

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from cxr_max.student.apo import apo_loss  # noqa: E402

BETA = 0.1
LOGPS = st.floats(-300, -0.1)
STUDIES = st.integers(1, 7).flatmap(
    lambda negatives: st.tuples(*(st.lists(LOGPS, min_size=1 + negatives, max_size=1 + negatives),) * 2)
)


def trl_sigmoid_loss(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """TRL's own loss code on given log-probs: (B, 2) -> the mean over B.

    ``DPOTrainer`` takes the log-probs from the model's fused head, so a model that returns the given ones
    as those of one-token replies runs its loss unchanged.
    """
    trainer = pytest.importorskip("trl").DPOTrainer
    rows = torch.cat([policy[:, 0], policy[:, 1]])
    blank = torch.zeros(len(rows), 1)

    def model(**_: Any) -> Any:
        return SimpleNamespace(
            log_probs=rows[:, None], entropy=blank, mean_logits=blank, is_top1=torch.zeros(len(rows), 1).bool()
        )

    accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    self = SimpleNamespace(
        model=torch.nn.Identity(),
        accelerator=accelerator,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics={"train": _Lists(), "eval": _Lists()},
        _total_train_tokens=0,
        _tp_size=1,
    )
    ones = torch.ones(len(rows), 2, dtype=torch.int64)
    inputs = {
        "input_ids": ones,
        "attention_mask": ones,
        "completion_mask": torch.tensor([[0, 1]] * len(rows)),
        "ref_chosen_logps": reference[:, 0],
        "ref_rejected_logps": reference[:, 1],
    }
    loss: Tensor = trainer._compute_loss(self, model, inputs, False)
    return loss


class _Lists(dict[str, list[float]]):
    """What a trainer logs, thrown away."""

    def __missing__(self, name: str) -> list[float]:
        return self.setdefault(name, [])


def column(*values: float) -> Tensor:
    """(1, values)."""
    return torch.tensor([values], dtype=torch.float32)


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5, 2.0])
def test_with_one_negative_loss_and_gradient_are_trls_dpo_sigmoid_loss(beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    policy = (-torch.rand(64, 2, generator=generator) * 20).requires_grad_()
    reference = -torch.rand(64, 2, generator=generator) * 20
    ours = apo_loss(policy, reference, beta).mean()
    (our_gradient,) = torch.autograd.grad(ours, policy)
    theirs = trl_sigmoid_loss(policy, reference, beta)
    (their_gradient,) = torch.autograd.grad(theirs, policy)
    assert theirs.item() > 0.1
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert torch.allclose(our_gradient, their_gradient, rtol=0, atol=1e-6)
    assert their_gradient.abs().max() > 1e-3 * beta


def test_the_first_column_is_the_preferred_one() -> None:
    policy, reference = torch.tensor([[-5.0, -30.0]]), torch.tensor([[-10.0, -10.0]])
    swapped = apo_loss(policy.flip(1), reference.flip(1), BETA)
    assert apo_loss(policy, reference, BETA).item() == pytest.approx(math.log1p(math.exp(-2.5)), rel=1e-5)
    assert swapped.item() == pytest.approx(math.log1p(math.exp(2.5)), rel=1e-5)
    assert torch.allclose(swapped, trl_sigmoid_loss(policy.flip(1), reference.flip(1), BETA), atol=1e-6)


def test_a_case_by_hand_with_three_negatives() -> None:
    # Rewards 0.1 x (10, -20, 0, 5) = 1, -2, 0, 0.5.
    policy, reference = column(-10, -40, -20, -15), column(-20, -20, -20, -20)
    expected = -math.log(math.e / (math.e + math.exp(-2) + 1 + math.exp(0.5)))
    assert apo_loss(policy, reference, BETA).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("negatives", [1, 3, 7])
def test_equal_rewards_cost_the_log_of_the_number_of_replies(negatives: int) -> None:
    logps = torch.full((2, 1 + negatives), -42.0)
    assert torch.allclose(apo_loss(logps, logps, BETA), torch.full((2,), math.log(1 + negatives)), atol=1e-6)


def test_without_negatives_the_loss_is_zero_and_pulls_nowhere() -> None:
    policy = torch.tensor([[-3.0], [-40.0]], requires_grad=True)
    loss = apo_loss(policy, torch.tensor([[-9.0], [-2.0]]), BETA)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0]
    assert policy.grad is not None
    assert policy.grad.tolist() == [[0.0], [0.0]]


def test_masked_negatives_count_as_if_they_were_not_there() -> None:
    policy = torch.tensor([[-10.0, -40.0, -20.0], [-9.0, -8.0, 0.0]], requires_grad=True)
    reference = torch.tensor([[-20.0, -20.0, -20.0], [-10.0, -12.0, 0.0]])
    mask = torch.tensor([[True, False, True], [True, True, False]])
    loss = apo_loss(policy, reference, BETA, mask)
    # Row by row: rewards 1 and 0; rewards 0.1 and 0.4.
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(-1)), math.log1p(math.exp(0.3))], rel=1e-5)
    loss.sum().backward()
    assert policy.grad is not None
    assert policy.grad[0, 1] == 0
    assert policy.grad[1, 2] == 0
    assert bool(policy.grad.isfinite().all())


def test_a_study_with_all_negatives_masked_costs_nothing() -> None:
    policy = torch.tensor([[-10.0, -40.0]], requires_grad=True)
    loss = apo_loss(policy, column(-20, -20), BETA, torch.tensor([[True, False]]))
    loss.sum().backward()
    assert loss.item() == 0
    assert policy.grad is not None
    assert policy.grad.tolist() == [[0.0, 0.0]]


def test_the_preferred_column_of_mask_and_weights_is_taken_as_one() -> None:
    policy, reference = column(-10, -40, -20), column(-20, -20, -20)
    plain = apo_loss(policy, reference, BETA)
    assert torch.equal(apo_loss(policy, reference, BETA, torch.tensor([[False, True, True]])), plain)
    assert torch.equal(apo_loss(policy, reference, BETA, weights=column(7, 1, 1)), plain)


def test_weights_multiply_the_negatives_in_the_denominator() -> None:
    # Rewards 1, -2, 0; weights 3 and 0.5.
    loss = apo_loss(column(-10, -40, -20), column(-20, -20, -20), BETA, weights=column(1, 3, 0.5))
    expected = -math.log(math.e / (math.e + 3 * math.exp(-2) + 0.5))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_weight_of_two_is_the_negative_twice_and_of_zero_the_negative_masked() -> None:
    policy, reference = column(-10, -40, -21), column(-20, -20, -20)
    twice = apo_loss(column(-10, -40, -40, -21), column(-20, -20, -20, -20), BETA)
    assert torch.allclose(apo_loss(policy, reference, BETA, weights=column(1, 2, 1)), twice, atol=1e-6)
    masked = apo_loss(policy, reference, BETA, torch.tensor([[True, False, True]]))
    assert torch.allclose(apo_loss(policy, reference, BETA, weights=column(1, 0, 1)), masked, atol=1e-6)


def test_the_gradient_is_the_closed_form() -> None:
    policy = torch.tensor([[-10.0, -40.0, -20.0, -15.0]], requires_grad=True)
    apo_loss(policy, torch.full((1, 4), -20.0), BETA).sum().backward()
    share = torch.softmax(BETA * (policy.detach() + 20), dim=1)
    share[0, 0] -= 1
    assert policy.grad is not None
    assert torch.allclose(policy.grad, BETA * share, atol=1e-7)


@given(STUDIES, st.floats(-50, 50))
def test_a_constant_added_to_all_log_probs_of_the_policy_changes_nothing(
    study: tuple[list[float], list[float]], constant: float
) -> None:
    policy, reference = (torch.tensor([logps], dtype=torch.float64) for logps in study)
    moved = apo_loss(policy + constant, reference, BETA)
    assert torch.allclose(moved, apo_loss(policy, reference, BETA), atol=1e-9)


@given(STUDIES, st.floats(1e-3, 50))
def test_a_likelier_preferred_reply_costs_less(study: tuple[list[float], list[float]], gain: float) -> None:
    policy, reference = (torch.tensor([logps], dtype=torch.float64) for logps in study)
    likelier = policy.clone()
    likelier[0, 0] += gain
    assert apo_loss(likelier, reference, BETA).item() <= apo_loss(policy, reference, BETA).item() + 1e-12


@given(STUDIES)
def test_the_order_of_the_negatives_does_not_matter(study: tuple[list[float], list[float]]) -> None:
    policy, reference = (torch.tensor([logps], dtype=torch.float64) for logps in study)
    order = [0, *range(policy.shape[1] - 1, 0, -1)]
    turned = apo_loss(policy[:, order], reference[:, order], BETA)
    assert torch.allclose(turned, apo_loss(policy, reference, BETA), atol=1e-9)


@given(STUDIES)
def test_the_loss_is_never_below_zero_and_grows_with_every_negative(
    study: tuple[list[float], list[float]],
) -> None:
    policy, reference = (torch.tensor([logps], dtype=torch.float64) for logps in study)
    losses = [apo_loss(policy[:, :n], reference[:, :n], BETA).item() for n in range(1, policy.shape[1] + 1)]
    # Near 0 a sum of exponentials may round down by its last bit.
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(losses))
    assert losses[0] == 0


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan])
def test_beta_must_be_above_zero(beta: float) -> None:
    with pytest.raises(ValueError, match="beta"):
        apo_loss(column(-1, -2), column(-1, -2), beta)


@pytest.mark.parametrize(
    ("policy", "reference"), [((2, 3), (2, 2)), ((3,), (3,)), ((2, 0), (2, 0)), ((2, 3), (3, 2))]
)
def test_shapes_that_are_no_table_of_replies_are_refused(
    policy: tuple[int, ...], reference: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="Log-probs"):
        apo_loss(torch.zeros(policy), torch.zeros(reference), BETA)
